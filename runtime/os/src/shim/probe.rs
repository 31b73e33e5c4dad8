//! What becomes of data between a pool and a file: whether it goes straight, and if not, why. It does *not* transfer any,
//! but for a block that is read where nothing else tells.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd};

use super::call::{call, interrupted, size};
use super::uapi::*;
use super::{Shim, ShimError};

/// Which way data goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// From the file to the device's memory.
    FromFile,
    /// From the device's memory to the file.
    ToFile,
}

/// What becomes of the data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// The file's device and this one exchange it by DMA. It is not in system RAM at any time, and no CPU touches it.
    Direct,
    /// The call does what it says, but the data goes through system RAM or the CPU.
    Staged,
    /// The call fails.
    Refused,
    /// Only a transfer tells, and was not tried.
    Unknown,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Direct => "straight from device to device",
            Self::Staged => "through system RAM",
            Self::Refused => "refused",
            Self::Unknown => "not known before a transfer",
        })
    }
}

/// Why a verdict is not [`Verdict::Direct`]. As text it says what to do about it, too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// It is no regular file and no block device.
    NotStorage,
    /// It is open without `O_DIRECT`: the page cache.
    NotODirect,
    /// The file system has no direct I/O for this file, for no reason that is listed below.
    NoDirectIo,
    /// No block device is behind the file: it is on the network, in memory, or on another file system.
    NoBlockDevice,
    /// The file system is none of those that are known to hand pages to the block device as they are.
    FileSystem,
    /// The CPU computes checksums of the data: the file system's, or those of the disk's format.
    Checksum,
    /// The data is compressed in the file system.
    Compressed,
    /// The data is encrypted in the file system.
    Encrypted,
    /// The data stands among the metadata.
    Inline,
    /// What is written is copied first, as it must not change on its way; so is what is read with xfs, which it cannot do to a
    /// pool.
    StableWrites,
    /// The file's memory is mapped as it is; there is no I/O.
    Dax,
    /// The block device does not take such pages: a virtual disk, one across the network, or device mapper.
    Queue,
    /// There are several disks or paths behind the block device (md, NVMe multipath), and the ways to them differ or are not
    /// known.
    Stacked,
    /// There is no bridge above both devices, and the kernel does not trust the host bridge.
    NoPath,
    /// There is a bridge above both devices, but access control services send what is between them to the host bridge,
    /// which the kernel does not trust.
    AcsRedirect,
}

impl Reason {
    /// All of them, with their numbers in the interface.
    const NUMBERS: [(limosa_reason, Self); 15] = [
        (LIMOSA_REASON_NOT_STORAGE, Self::NotStorage),
        (LIMOSA_REASON_NOT_O_DIRECT, Self::NotODirect),
        (LIMOSA_REASON_NO_DIRECT_IO, Self::NoDirectIo),
        (LIMOSA_REASON_NO_BLOCK_DEVICE, Self::NoBlockDevice),
        (LIMOSA_REASON_FILE_SYSTEM, Self::FileSystem),
        (LIMOSA_REASON_CHECKSUM, Self::Checksum),
        (LIMOSA_REASON_COMPRESSED, Self::Compressed),
        (LIMOSA_REASON_ENCRYPTED, Self::Encrypted),
        (LIMOSA_REASON_INLINE, Self::Inline),
        (LIMOSA_REASON_STABLE_WRITES, Self::StableWrites),
        (LIMOSA_REASON_DAX, Self::Dax),
        (LIMOSA_REASON_QUEUE, Self::Queue),
        (LIMOSA_REASON_STACKED, Self::Stacked),
        (LIMOSA_REASON_NO_PATH, Self::NoPath),
        (LIMOSA_REASON_ACS_REDIRECT, Self::AcsRedirect),
    ];
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotStorage => "this is no regular file and no block device: open one that is",
            Self::NotODirect => "it is open without O_DIRECT, so that data goes through the page cache: open it with O_DIRECT",
            Self::NoDirectIo => {
                "the file system has no direct I/O for this file: put it on ext4 or xfs, or read the block device"
            }
            Self::NoBlockDevice => {
                "no block device is behind the file (it is on the network, in memory, or on another file system): put it \
                 on a local disk"
            }
            Self::FileSystem => {
                "this file system is not known to hand pages to the disk as they are: put the file on ext4 or xfs"
            }
            Self::Checksum => {
                "the CPU computes checksums of the data: put the file on ext4 or xfs; a disk with protection information \
                 must be formatted without"
            }
            Self::Compressed => "the data is compressed in the file system: write the file anew without compression",
            Self::Encrypted => "the data is encrypted in the file system: put the file into a folder that is not",
            Self::Inline => "the data is so little that it stands among the metadata: read it as usual",
            Self::StableWrites => {
                "data is copied on its way, as the disk or the file system wants it not to change meanwhile: use another \
                 disk"
            }
            Self::Dax => "the file's memory is mapped as it is (DAX) and there is no I/O: mount it without `dax`",
            Self::Queue => {
                "the block device does not take pages of another device (a virtual disk, one across the network, or \
                 device mapper): use an NVMe disk of this machine"
            }
            Self::Stacked => {
                "there are several disks or paths behind the block device, and the kernel does not say which one a \
                 transfer takes: use one of the disks by itself, or see what a transfer does"
            }
            Self::NoPath => {
                "no bridge is above both devices (`lspci -t`), and the kernel does not trust the host bridge with \
                 transfers between them: put both below one switch"
            }
            Self::AcsRedirect => {
                "both devices are below one bridge, but access control services send what is between them up to the host \
                 bridge: boot with `pci=disable_acs_redir=` and the bridge's ports, where that isolation is not needed"
            }
        })
    }
}

/// Which way DMA between two devices takes. Links are as the kernel counts them: 4 between two ports of one switch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Route {
    /// It turns at a bridge above both.
    Switch {
        /// From one device to the other; 0: they are the same.
        links: u32,
    },
    /// Through the host bridge.
    HostBridge {
        /// From one device to the other.
        links: u32,
    },
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Switch { links } => write!(f, "through a bridge above both devices, {links} links"),
            Self::HostBridge { links } => write!(f, "through the host bridge, {links} links"),
        }
    }
}

/// What direct I/O to a file must be a multiple of, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Alignment {
    /// The address of the memory.
    pub memory: u32,
    /// The offset in the file, and the length.
    pub offset: u32,
}

/// What becomes of data between the device's pools and a file, as it is open now. From the file, it is what becomes of
/// loads, too. As text it is a sentence.
///
/// It is the verdict of data that stands on the disk. Holes, and what was written and is not there yet, are the file
/// system's matter, and the CPU fills in holes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Probe {
    /// What becomes of it.
    pub verdict: Verdict,
    /// Why, if it does not go straight.
    pub reason: Option<Reason>,
    /// Which way it takes from device to device, where that is known.
    pub route: Option<Route>,
    /// What addresses, offsets and lengths must be; `None`: the file has no direct I/O.
    pub alignment: Option<Alignment>,
}

impl fmt::Display for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.verdict.fmt(f)?;
        self.route.map_or(Ok(()), |route| write!(f, ", {route}"))?;
        self.reason.map_or(Ok(()), |reason| write!(f, ": {reason}"))
    }
}

impl Probe {
    /// What the kernel's numbers say; `None`: a number that is not in the interface.
    fn of(probe: &limosa_probe) -> Option<Self> {
        let verdict = match probe.verdict {
            LIMOSA_VERDICT_DIRECT => Verdict::Direct,
            LIMOSA_VERDICT_STAGED => Verdict::Staged,
            LIMOSA_VERDICT_REFUSED => Verdict::Refused,
            LIMOSA_VERDICT_UNKNOWN => Verdict::Unknown,
            _ => return None,
        };
        let reason = match probe.reason {
            LIMOSA_REASON_NONE => None,
            number => Some(Reason::NUMBERS.iter().find(|(of, _)| *of == number)?.1),
        };
        let route = match probe.route {
            LIMOSA_ROUTE_NONE => None,
            LIMOSA_ROUTE_SWITCH => Some(Route::Switch { links: probe.distance }),
            LIMOSA_ROUTE_HOST_BRIDGE => Some(Route::HostBridge { links: probe.distance }),
            _ => return None,
        };
        let (memory, offset) = (probe.memory_align, probe.offset_align);
        let alignment = (memory > 0 && offset > 0).then_some(Alignment { memory, offset });
        Some(Self { verdict, reason, route, alignment })
    }
}

const ASKING: &str = "asking what becomes of a file's data";

impl Shim {
    /// Tells what becomes of data between this device's pools and an open file. Nothing is written but what of the file waits
    /// for it in the page cache. Where only a transfer tells, a block is read into device memory, if some is free.
    ///
    /// That a transfer succeeded does not tell: a read through the page cache into a pool succeeds, too.
    ///
    /// # Errors
    /// [`ShimError::NotOpen`] (the file is not open for that direction), [`ShimError::Unsupported`] (other devices do not reach
    /// this one's memory), [`ShimError::OutOfMemory`],
    /// [`ShimError::OtherProcess`], [`ShimError::DeviceGone`], [`ShimError::Failed`] where the answer makes no sense.
    ///
    /// # Example
    /// ```no_run
    /// use std::fs::File;
    ///
    /// use limosa_os::shim::{Direction, Shim, Verdict};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let probe = Shim::open(0)?.probe(&File::open("weights.bin")?, Direction::FromFile)?;
    /// if probe.verdict != Verdict::Direct {
    ///     println!("{probe}"); // through system RAM: it is open without O_DIRECT …
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn probe(&self, file: impl AsFd, direction: Direction) -> Result<Probe, ShimError> {
        let direction = match direction {
            Direction::FromFile => LIMOSA_FROM_FILE,
            Direction::ToFile => LIMOSA_TO_FILE,
        };
        let fd = file.as_fd().as_raw_fd();
        let mut probe = limosa_probe { size: size::<limosa_probe>(), fd, direction, ..Default::default() };
        // SAFETY: the request's own struct, which names no address. What is read meanwhile goes to nobody's memory.
        while let Err(error) = unsafe { call(self.as_fd(), LIMOSA_PROBE, &mut probe) } {
            if !interrupted(&error) {
                return Err(ShimError::of(ASKING, error));
            }
        }
        Probe::of(&probe).ok_or_else(|| {
            let source = io::Error::new(io::ErrorKind::InvalidData, format!("its answer is unknown: {probe:?}"));
            ShimError::Failed { operation: ASKING, source }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_number_of_the_header_has_its_meaning_and_no_other_has_one() {
        let reasons = (0..=LIMOSA_REASON_ACS_REDIRECT)
            .map(|reason| Probe::of(&limosa_probe { reason, ..Default::default() }).unwrap().reason);
        let texts: std::collections::BTreeSet<_> =
            reasons.map(|reason| reason.map_or_else(String::new, |reason| reason.to_string())).collect();
        assert_eq!(texts.len(), Reason::NUMBERS.len() + 1, "each has a text of its own");
        assert!(texts.iter().skip(1).all(|text| text.contains(": ")), "and says what to do: {texts:?}");
        let last = [LIMOSA_REASON_ACS_REDIRECT, LIMOSA_VERDICT_UNKNOWN, LIMOSA_ROUTE_HOST_BRIDGE];
        for wrong in [last.map(|last| last + 1), [u32::MAX; 3]] {
            let [reason, verdict, route] = wrong;
            assert_eq!(Probe::of(&limosa_probe { reason, ..Default::default() }), None);
            assert_eq!(Probe::of(&limosa_probe { verdict, ..Default::default() }), None);
            assert_eq!(Probe::of(&limosa_probe { route, ..Default::default() }), None);
        }
    }

    #[test]
    fn a_probe_reads_as_a_sentence() {
        let direct = limosa_probe {
            route: LIMOSA_ROUTE_SWITCH,
            distance: 4,
            memory_align: 4,
            offset_align: 512,
            ..Default::default()
        };
        let probe = Probe::of(&direct).unwrap();
        assert_eq!(probe.alignment, Some(Alignment { memory: 4, offset: 512 }));
        let text = "straight from device to device, through a bridge above both devices, 4 links";
        assert_eq!(probe.to_string(), text);
        let staged =
            limosa_probe { verdict: LIMOSA_VERDICT_STAGED, reason: LIMOSA_REASON_INLINE, ..Default::default() };
        let probe = Probe::of(&staged).unwrap();
        assert_eq!((probe.alignment, probe.route), (None, None));
        assert!(probe.to_string().starts_with("through system RAM: the data is so little"), "{probe}");
    }
}
