//! What the data disk's controller was asked to do, from QEMU's trace of it: where the data of each command lay. Pure.

use std::ops::Range;

use crate::protocol::DATA_SPACE;

/// A read or a write of the data disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    /// Whether data went from memory to the disk.
    pub write: bool,
    /// How many bytes.
    pub bytes: u64,
    /// The pieces of memory, by their addresses on the bus, in the order of the data.
    pub memory: Vec<Range<u64>>,
}

/// How many bytes of commands lay where.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tally {
    /// In the memory that was asked for.
    pub inside: u64,
    /// Elsewhere: in system memory.
    pub outside: u64,
}

/// Counts the bytes of commands by whether they lay in `memory`, the bus addresses of a device.
#[must_use]
pub fn tally<'a>(commands: impl IntoIterator<Item = &'a Command>, memory: &Range<u64>) -> Tally {
    let mut tally = Tally::default();
    for piece in commands.into_iter().flat_map(|command| &command.memory) {
        let bytes = piece.end - piece.start;
        let inside = memory.start <= piece.start && piece.end <= memory.end;
        *(if inside { &mut tally.inside } else { &mut tally.outside }) += bytes;
    }
    tally
}

/// Reads the lines of a trace. A line that has not come to its end is left out.
///
/// # Errors
/// A line that is not as expected: QEMU has changed them.
pub fn parse(text: &str) -> Result<Vec<Command>, String> {
    let mut commands: Vec<Command> = Vec::new();
    // Whether the memory that follows is of the last of these: other commands and other disks have some, too.
    let mut ours = false;
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    for line in whole.lines() {
        let Some((event, rest)) = line.split_once(' ') else { continue };
        let wrong = || format!("a line of the trace that is not understood: {line}");
        let number = |name| number(rest, name).ok_or_else(wrong);
        match event {
            "pci_nvme_io_cmd" | "pci_nvme_admin_cmd" => ours = false,
            "pci_nvme_read" | "pci_nvme_write" => {
                ours = number("nsid")? == u64::from(DATA_SPACE);
                if ours {
                    let (write, bytes) = (event == "pci_nvme_write", number("count")?);
                    commands.push(Command { write, bytes, memory: Vec::new() });
                }
            }
            "pci_nvme_map_addr" => {
                let (start, bytes) = (number("addr")?, number("len")?);
                if let Some(command) = commands.last_mut().filter(|_| ours) {
                    command.memory.push(start..start + bytes);
                }
            }
            _ => {}
        }
    }
    Ok(commands)
}

/// The number after `name` among words, decimal or with `0x`.
fn number(words: &str, name: &str) -> Option<u64> {
    let mut words = words.split_whitespace().skip_while(|word| *word != name);
    words.next()?;
    let word = words.next()?;
    word.strip_prefix("0x").map_or_else(|| word.parse().ok(), |digits| u64::from_str_radix(digits, 16).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A read of 8 KiB into a device, one of another disk, a write of 8 KiB out of system memory, and the beginning of a
    /// line.
    const TEXT: &str = "\
pci_nvme_io_cmd cid 0 nsid 0x1 sqid 1 opc 0x2 opname 'NVME_NVM_CMD_READ'
pci_nvme_read cid 0 nsid 1 nlb 16 count 8192 lba 0x800
pci_nvme_map_addr addr 0x380001000 len 4096
pci_nvme_map_addr addr 0x380002000 len 4096
pci_nvme_io_cmd cid 7 nsid 0x2 sqid 1 opc 0x2 opname 'NVME_NVM_CMD_READ'
pci_nvme_read cid 7 nsid 2 nlb 8 count 4096 lba 0x0
pci_nvme_map_addr addr 0x1000 len 4096
pci_nvme_io_cmd cid 1 nsid 0x1 sqid 1 opc 0x1 opname 'NVME_NVM_CMD_WRITE'
pci_nvme_write cid 1 opname 'write' nsid 1 nlb 16 count 8192 lba 0x0
pci_nvme_map_addr addr 0x5000 len 4096
pci_nvme_map_addr addr 0x7000 len 4096
pci_nvme_admin_cmd cid 3 sqid 0 opc 0x6 opname 'NVME_ADM_CMD_IDENTIFY'
pci_nvme_map_addr addr 0x9000 len 4096
pci_nvme_io_cmd cid 1 ns";

    #[test]
    fn memory_belongs_to_the_command_before_it_and_only_the_data_disks_counts() {
        let commands = parse(TEXT).unwrap();
        let read = Command {
            write: false,
            bytes: 8192,
            memory: vec![0x3_8000_1000..0x3_8000_2000, 0x3_8000_2000..0x3_8000_3000],
        };
        let write = Command { write: true, bytes: 8192, memory: vec![0x5000..0x6000, 0x7000..0x8000] };
        assert_eq!(commands, [read, write]);
        assert_eq!(tally(&commands, &(0x3_8000_0000..0x3_a000_0000)), Tally { inside: 8192, outside: 8192 });
        // What is half inside is outside.
        assert_eq!(tally(&commands, &(0x3_8000_0000..0x3_8000_2800)), Tally { inside: 4096, outside: 12288 });
    }

    #[test]
    fn a_trace_of_another_form_is_an_error_and_not_an_empty_one() {
        assert!(parse("pci_nvme_read cid 0 space 1 blocks 16\n").unwrap_err().contains("blocks 16"));
        assert!(parse("pci_nvme_map_addr address 4096\n").is_err());
    }
}
