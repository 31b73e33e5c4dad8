//! The virtual machine: QEMU's arguments for a machine of the manifest, and by what it is run. It starts nothing but the
//! question whether KVM works.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufRead};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use super::manifest::Machine;
use super::protocol::{CHANNEL, DATA, DATA_SERIAL, DATA_SPACE, OTHER_SPACE, PAYLOAD_SERIAL, SWAP_SERIAL};
use super::roots::root_partition;
use crate::command::{query, say};
use crate::error::Error;

pub(super) const QEMU: &str = "qemu-system-x86_64";
const MEMORY_MIB: u64 = 3072;
const SWAP: u64 = 1 << 30;
/// Bytes of the data disk.
pub(super) const DATA_SIZE: u64 = 1 << 30;
/// QEMU's name of the file behind it.
pub(super) const DATA_FILE: &str = "data-file";

/// By what the guest is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Accel {
    Kvm,
    Tcg,
}

impl Accel {
    /// KVM where it truly works: the device may be there, open, and its guests die at their first instructions. So a
    /// kernel is booted as far as its first line.
    pub(super) fn find(kernel: &Path) -> Self {
        let works = probe(kernel).unwrap_or(false);
        if !works {
            say("guest: KVM does not work here; the guest is run by TCG, which is slower");
        }
        if works { Self::Kvm } else { Self::Tcg }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Kvm => "kvm",
            Self::Tcg => "tcg",
        }
    }

    /// QEMU's processor. TCG emulates `rep movsb` and `rep stosb` byte by byte, and the kernel copies and clears pages with
    /// them where the processor calls them fast: without these features it takes words, and is many times faster here.
    fn processor(self, machine: &Machine) -> String {
        let name = machine.cpu.as_deref().unwrap_or("max");
        match self {
            Self::Kvm => name.to_owned(),
            Self::Tcg => format!("{name},erms=off,fsrm=off"),
        }
    }

    /// How many times longer than on a real processor things may take.
    pub(super) fn factor(self) -> u32 {
        match self {
            Self::Kvm => 1,
            Self::Tcg => 6,
        }
    }
}

/// Whether a kernel gets to its first line under KVM.
fn probe(kernel: &Path) -> io::Result<bool> {
    const PATIENCE: Duration = Duration::from_secs(20);
    if !Path::new("/dev/kvm").exists() {
        return Ok(false);
    }
    let (reader, writer) = io::pipe()?;
    let mut command = mortal();
    command.args(["-accel", "kvm", "-machine", "q35", "-cpu", "max", "-m", "512", "-nodefaults", "-display", "none"]);
    command.args(["-no-reboot", "-serial", "stdio", "-append", "console=ttyS0 panic=-1", "-kernel"]).arg(kernel);
    let mut child = command.stdin(Stdio::null()).stdout(writer.try_clone()?).stderr(writer).spawn()?;
    // It holds the other end of the pipe too.
    drop(command);
    let (sender, verdict) = mpsc::channel();
    thread::spawn(move || {
        let lines = io::BufReader::new(reader).lines().map_while(Result::ok);
        sender.send(lines.filter_map(|line| first_word(&line)).next().unwrap_or(false))
    });
    let works = verdict.recv_timeout(PATIENCE).unwrap_or(false);
    // It may have ended by itself.
    let _ = child.kill();
    child.wait()?;
    Ok(works)
}

/// What a line of QEMU's or of the kernel's says about KVM, if anything.
fn first_word(line: &str) -> Option<bool> {
    if line.contains("Linux version") {
        return Some(true);
    }
    ["KVM internal error", "failed to initialize kvm", "Could not access KVM"]
        .iter()
        .any(|sign| line.contains(sign))
        .then_some(false)
}

/// QEMU, such that it dies with us.
fn mortal() -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", QEMU]);
    command
}

/// The files of one boot: they live in a folder for it.
pub(super) struct Files {
    pub(super) kernel: PathBuf,
    pub(super) root: PathBuf,
    pub(super) payload: PathBuf,
    /// What the kernel logs; none: the console is the terminal.
    pub(super) log: Option<PathBuf>,
    /// The channel's socket, on which we listen.
    pub(super) socket: PathBuf,
    /// Where QEMU's monitor listens.
    pub(super) monitor: PathBuf,
    /// What QEMU traces.
    pub(super) trace: PathBuf,
    pub(super) swap: PathBuf,
    pub(super) data: PathBuf,
    /// The files behind the devices' memory.
    pub(super) vram: Vec<PathBuf>,
}

impl Files {
    /// Makes the empty ones, and gives those that are memory of devices.
    pub(super) fn make(&self, machine: &Machine) -> Result<Vec<File>, Error> {
        let make = |path: &Path, size: u64| {
            let file = File::options().read(true).write(true).create_new(true).open(path);
            let file = file.and_then(|file| file.set_len(size).map(|()| file));
            file.map_err(Error::io(format!("cannot make {}", path.display())))
        };
        make(&self.swap, SWAP)?;
        make(&self.data, DATA_SIZE)?;
        make(&self.trace, 0)?;
        self.vram.iter().zip(&machine.vram).map(|(path, size)| make(path, size << 20)).collect()
    }

    /// Removes the names of the devices' memory, which QEMU has opened: the memory goes with who has it open, also if we
    /// are killed.
    pub(super) fn forget_memory(vram: &[PathBuf]) {
        for path in vram {
            let _ = fs::remove_file(path);
        }
    }
}

/// A folder for files that are a device's memory: in memory where there is enough of it, since a disk would be written to
/// at the speed of the devices.
pub(super) fn memory_folder(otherwise: &Path, machine: &Machine) -> PathBuf {
    let needed = machine.vram.iter().sum::<u64>() + 64;
    let mut df = Command::new("df");
    let free = query(df.args(["--output=avail", "--block-size=1M", "/dev/shm"])).ok().flatten();
    let free = free.and_then(|text| text.lines().nth(1)?.trim().parse::<u64>().ok());
    if free.is_some_and(|free| free >= needed) { PathBuf::from("/dev/shm") } else { otherwise.to_owned() }
}

/// The command that runs the machine.
pub(super) fn command(machine: &Machine, files: &Files, accel: Accel, factor: u32) -> Command {
    let mut command = mortal();
    command.args(arguments(machine, files, accel, factor));
    command
}

fn arguments(machine: &Machine, files: &Files, accel: Accel, factor: u32) -> Vec<String> {
    let accelerator = match accel {
        Accel::Kvm => "kvm",
        Accel::Tcg => "tcg,thread=multi",
    };
    let memory = MEMORY_MIB.to_string();
    let append = kernel_command_line(machine, factor, files.log.is_none());
    let mut all: Vec<String> = Vec::new();
    let mut add = |words: &[&str]| all.extend(words.iter().map(|&word| word.to_owned()));
    add(&["-accel", accelerator, "-machine", "q35", "-cpu", &accel.processor(machine), "-smp", "2", "-m", &memory]);
    add(&["-nodefaults", "-display", "none", "-no-reboot"]);
    add(&["-kernel", &files.kernel.to_string_lossy(), "-append", &append]);
    match &files.log {
        Some(log) => add(&["-serial", &format!("file:{}", log.display())]),
        None => add(&["-serial", "mon:stdio"]),
    }
    add(&["-device", "virtio-serial-pci"]);
    add(&["-chardev", &format!("socket,id=channel,path={}", files.socket.display())]);
    add(&["-device", &format!("virtserialport,chardev=channel,name={CHANNEL}")]);
    add(&["-qmp", &format!("unix:{},server=on,wait=off", files.monitor.display())]);
    // Tests turn the trace on: until then it is empty.
    add(&["-D", &files.trace.to_string_lossy()]);
    // No run alters the root: what is written goes to a file that is gone with QEMU.
    add(&disk("root", &files.root, "limosa-root").each_ref().map(String::as_str));
    add(&disk("payload", &files.payload, PAYLOAD_SERIAL).each_ref().map(String::as_str));
    add(&disk("swap", &files.swap, SWAP_SERIAL).each_ref().map(String::as_str));
    let plugged = pluggable(machine);
    for bridge in machine.topology.bridges(plugged.len()) {
        add(&["-device", &bridge]);
    }
    for (number, (size, file)) in machine.vram.iter().zip(&files.vram).enumerate() {
        let file = file.display();
        add(&["-object", &format!("memory-backend-file,id=vram{number},mem-path={file},size={size}M,share=on")]);
    }
    if machine.multipath {
        add(&["-device", "nvme-subsys,id=subsystem"]);
    }
    // The file is of this run alone, and stays when the disk is unplugged.
    add(&["-blockdev", &format!("driver=file,node-name={DATA_FILE},filename={}", files.data.display())]);
    add(&["-blockdev", &format!("driver=raw,node-name={DATA},size={DATA_SIZE},file={DATA_FILE}")]);
    for device in plugged.values() {
        add(&["-device", device]);
    }
    if machine.multipath {
        // The other way to the disk is from the root bus.
        add(&["-device", &format!("nvme,id=other-way,subsys=subsystem,serial={DATA_SERIAL},bus=pcie.0")]);
        add(&["-device", &format!("nvme-ns,drive={DATA},bus={DATA},nsid={DATA_SPACE}")]);
    }
    all
}

/// The devices, by the names that tests have for them, the data disk after them, and what memory there is of a controller.
pub(super) fn pluggable(machine: &Machine) -> BTreeMap<String, String> {
    let place = |number| machine.topology.place(number);
    let device = |number| {
        let (id, place) = (format!("gpu{number}"), place(number));
        (id.clone(), format!("ivshmem-plain,id={id},memdev=vram{number},{place}"))
    };
    let after = machine.vram.len();
    let space = if machine.multipath { "subsys=subsystem" } else { "drive=data" };
    let data = format!("nvme,id={DATA},{space},serial={DATA_SERIAL},{}", place(after));
    let (memory, id) = (machine.controller_memory, "controller");
    let controller = format!("nvme,id={id},serial=limosa-{id},cmb_size_mb={memory},{}", place(after + 1));
    let controller = (memory > 0).then_some((id.to_owned(), controller));
    (0..after).map(device).chain([(DATA.to_owned(), data)]).chain(controller).collect()
}

fn disk(id: &str, file: &Path, serial: &str) -> [String; 6] {
    let file = file.display();
    [
        "-drive".to_owned(),
        format!("if=none,id={id},file={file},format=raw,snapshot=on"),
        "-device".to_owned(),
        format!("nvme,id={id}-disk,serial={serial},bus=pcie.0"),
        "-device".to_owned(),
        format!("nvme-ns,drive={id},bus={id}-disk,nsid={OTHER_SPACE}"),
    ]
}

fn kernel_command_line(machine: &Machine, factor: u32, shell: bool) -> String {
    let mut words = vec![
        "console=ttyS0".to_owned(),
        format!("root={} rootwait rw init=/sbin/limosa-first", root_partition()),
        // An oops does not panic: the log is judged, and the other tests may still tell something.
        "panic=-1".to_owned(),
        format!("loglevel={}", if shell { 4 } else { 7 }),
        format!("sysctl.kernel.hung_task_timeout_secs={}", 60 * factor),
        "sysctl.kernel.hung_task_warnings=-1".to_owned(),
        // Debian's kernel else zeroes each page when it is allocated, before ours is overwritten by the copy: a page that
        // was not overwritten would not show, and figures would not be of the driver.
        "init_on_alloc=0".to_owned(),
        // A soft lockup is told after twice that.
        format!("sysctl.kernel.watchdog_thresh={}", (10 * factor).min(60)),
        format!("rcupdate.rcu_cpu_stall_timeout={}", (30 * factor).min(300)),
    ];
    words.extend(machine.cmdline.iter().cloned());
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(accel: Accel) -> String {
        let path = |name: &str| PathBuf::from(format!("/t/{name}"));
        let files = Files {
            kernel: path("vmlinuz"),
            root: path("root"),
            payload: path("payload"),
            log: Some(path("log")),
            socket: path("socket"),
            monitor: path("monitor"),
            trace: path("trace"),
            swap: path("swap"),
            data: path("data"),
            vram: vec![path("vram0"), path("vram1")],
        };
        let cmdline = vec!["memmap=0x10000000$0x40000000".to_owned()];
        let machine = Machine { vram: vec![512, 256], cmdline, ..Machine::default() };
        arguments(&machine, &files, accel, 6).join(" ")
    }

    #[test]
    fn kvm_works_if_a_kernel_speaks_and_not_if_qemu_says_so() {
        assert_eq!(first_word("[    0.000000] Linux version 7.3.4+deb13-cloud-amd64"), Some(true));
        assert_eq!(first_word("KVM internal error. Suberror: 1"), Some(false));
        assert_eq!(first_word("qemu-system-x86_64: failed to initialize kvm: Permission denied"), Some(false));
        assert_eq!(first_word("SeaBIOS (version 1.16.3)"), None);
    }

    #[test]
    fn devices_and_the_data_disk_are_below_one_switch_in_their_order() {
        let line = line(Accel::Tcg);
        let parts = [
            "-device x3130-upstream,id=switch",
            "-device xio3130-downstream,id=down0,bus=switch",
            "-device nvme,id=data,drive=data,serial=limosa-data,bus=down2",
            "-device ivshmem-plain,id=gpu0,memdev=vram0,bus=down0",
            "-device ivshmem-plain,id=gpu1,memdev=vram1,bus=down1",
        ];
        let places: Vec<usize> = parts.iter().map(|part| line.find(part).unwrap_or_else(|| panic!("{part}"))).collect();
        assert!(places.is_sorted(), "{line}");
    }

    #[test]
    fn only_an_emulated_processor_lacks_fast_strings() {
        assert!(line(Accel::Tcg).contains(" -cpu max,erms=off,fsrm=off "));
        assert!(line(Accel::Kvm).contains(" -cpu max -smp "));
    }

    #[test]
    fn no_disk_outlives_a_run_and_the_kernel_gets_what_the_machine_asks() {
        let line = line(Accel::Tcg);
        assert_eq!(line.matches("-drive ").count(), line.matches("snapshot=on").count());
        assert!(line.contains(" memmap=0x10000000$0x40000000 "), "{line}");
        assert!(line.contains(" init_on_alloc=0 "), "{line}");
        assert!(line.contains("hung_task_timeout_secs=360 ") && !line.contains("oops=panic"), "{line}");
    }
}
