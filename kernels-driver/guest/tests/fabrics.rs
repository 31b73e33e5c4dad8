//! NVMe over Fabrics with the device's memory: the kernel's target takes it for a disk's buffers, and what it does with it
//! on the transports that there are here. Only its RDMA transport says for whom peer-to-peer memory would be (`p2p_client`
//! in drivers/nvme/target/rdma.c): loop and TCP have data in system memory.
#![allow(clippy::unwrap_used)] // tests

mod common;

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use common::files::{contents, direct, disk, kernel_has, put, tool};
use common::memory::{Memory, PAGE};
use common::peer::{forget, read, reads_go_as_told, traced, way};
use common::unified::{Unified, data_file, reason};
use common::{device, until};
use limosa::Tier;
use limosa_guest::device::list;
use limosa_guest::trace::Tally;
use limosa_os::shim::uapi::{LIMOSA_REASON_QUEUE, LIMOSA_VERDICT_REFUSED};

const PAGES: usize = 700;
const TARGET: &str = "/sys/kernel/config/nvmet";
const NAME: &str = "limosa";

/// The disk as a target's name space, with the first device's memory for its buffers, at a port.
struct Target(&'static str);

fn set(path: &str, value: &str) {
    let path = Path::new(TARGET).join(path);
    fs::write(&path, value).unwrap_or_else(|error| panic!("{value} to {}: {error}", path.display()));
}

impl Target {
    fn new(transport: &'static str) -> Self {
        if !Path::new(TARGET).exists() {
            tool("mount -t configfs none /sys/kernel/config");
        }
        let own = Self(transport);
        fs::create_dir(format!("{TARGET}/subsystems/{NAME}")).unwrap();
        set(&format!("subsystems/{NAME}/attr_allow_any_host"), "1");
        fs::create_dir(format!("{TARGET}/subsystems/{NAME}/namespaces/1")).unwrap();
        let space = |name: &str| format!("subsystems/{NAME}/namespaces/1/{name}");
        set(&space("device_path"), &disk().to_string_lossy());
        let address = &list().unwrap()[0].address;
        set(&space("p2pmem"), address);
        set(&space("enable"), "1");
        let told = fs::read_to_string(Path::new(TARGET).join(space("p2pmem"))).unwrap();
        assert_eq!(told.trim(), address, "the target has taken the device's memory");
        fs::create_dir(format!("{TARGET}/ports/1")).unwrap();
        set("ports/1/addr_trtype", transport);
        if transport == "tcp" {
            set("ports/1/addr_adrfam", "ipv4");
            set("ports/1/addr_traddr", "127.0.0.1");
            set("ports/1/addr_trsvcid", "4420");
        }
        std::os::unix::fs::symlink(
            format!("{TARGET}/subsystems/{NAME}"),
            format!("{TARGET}/ports/1/subsystems/{NAME}"),
        )
        .unwrap();
        own
    }

    /// The target's disk, as another host would see it.
    fn connect(&self) -> Connection {
        let mut fabrics = OpenOptions::new().read(true).write(true).open("/dev/nvme-fabrics").unwrap();
        let place = if self.0 == "tcp" { ",traddr=127.0.0.1,trsvcid=4420" } else { "" };
        fabrics.write_all(format!("nqn={NAME},transport={}{place}", self.0).as_bytes()).unwrap();
        let mut told = String::new();
        fabrics.read_to_string(&mut told).unwrap();
        let instance = told.split([',', '=']).nth(1).unwrap().trim();
        Connection { controller: format!("nvme{instance}"), _fabrics: fabrics }
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        // As far as it came.
        let _ = fs::remove_file(format!("{TARGET}/ports/1/subsystems/{NAME}"));
        let _ = fs::remove_dir(format!("{TARGET}/ports/1"));
        let _ = fs::remove_dir(format!("{TARGET}/subsystems/{NAME}/namespaces/1"));
        let _ = fs::remove_dir(format!("{TARGET}/subsystems/{NAME}"));
    }
}

struct Connection {
    controller: String,
    _fabrics: File,
}

impl Connection {
    fn disk(&self) -> PathBuf {
        let path = PathBuf::from(format!("/dev/{}n1", self.controller));
        until("the target's disk is there", || File::open(&path).is_ok());
        path
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        let _ = fs::write(format!("/sys/class/nvme/{}/delete_controller", self.controller), "1");
    }
}

/// A machine's own network is down at first.
fn loopback_up() {
    // SAFETY: a socket, and a struct of the kernel's size with a name that ends in zeros.
    unsafe {
        let socket = libc::socket(libc::AF_INET, libc::SOCK_DGRAM, 0);
        let mut request: libc::ifreq = std::mem::zeroed();
        request.ifr_name[..2].copy_from_slice(&b"lo".map(u8::cast_signed));
        request.ifr_ifru.ifru_flags = i16::try_from(libc::IFF_UP | libc::IFF_RUNNING).unwrap();
        assert_eq!(libc::ioctl(socket, libc::SIOCSIFFLAGS, &raw const request), 0);
        libc::close(socket);
    }
}

/// What the kernel has of the device's memory for users like the target: size and what is free of it.
fn published() -> [u64; 2] {
    let folder = list().unwrap()[0].sysfs().join("p2pmem");
    ["size", "available"].map(|name| fs::read_to_string(folder.join(name)).unwrap().trim().parse().unwrap())
}

fn data_goes_through_system_memory(transport: &'static str) {
    put(&disk(), PAGES, 1);
    let before = published();
    assert_eq!(before[1], 32 << 20, "what the module gave to the kernel");
    let target = Target::new(transport);
    let connection = target.connect();
    let file = direct(&connection.disk());
    let memory = Memory::pages(PAGES);
    forget();
    let (got, commands) = traced(|| read(&file, &memory));
    assert_eq!(got.unwrap(), PAGES * PAGE);
    memory.check(1);
    assert_eq!(way(&commands, false), Tally { inside: 0, outside: (PAGES * PAGE) as u64 });
    assert_eq!(published(), before);
    // And a pool is no buffer for such a disk.
    let told = reads_go_as_told(&device(), &file, PAGES, 1);
    assert_eq!([told.verdict, told.reason], [LIMOSA_VERDICT_REFUSED, LIMOSA_REASON_QUEUE]);
    streams(&connection.disk());
}

/// What limosa makes of a disk across the network: for memory that migrates what it makes of any, for a device's the next
/// best, and says why.
fn streams(disk: &Path) {
    let Some(kit) = Unified::new("fabrics", |builder| builder) else { return };
    let file = data_file(disk);
    for (heap, expected) in [(kit.device_heap(), Tier::Staged), (kit.context.heap().clone(), Tier::Direct)] {
        let mut vec = heap.vec_zeroed::<u32>(PAGES * PAGE / 4).unwrap();
        let report = kit.read(&file, &mut vec);
        assert_eq!(report.tier(), Some(expected), "{report:?}");
        let (why, part) = (reason(&report, Tier::P2p), ["across the network", "SharedDevice"]);
        assert!(why.contains(part[usize::from(expected == Tier::Direct)]), "{why}");
        let bytes: Vec<u8> = vec.read().unwrap().iter().flat_map(|word| word.to_ne_bytes()).collect();
        assert!(bytes == contents(PAGES, 1), "{expected}");
    }
}

#[test]
fn a_target_on_loop_takes_the_memory_and_does_not_use_it() {
    if kernel_has("fabrics::a_target_on_loop_takes_the_memory_and_does_not_use_it", "nvme-loop") {
        data_goes_through_system_memory("loop");
    }
}

#[test]
fn a_target_on_tcp_takes_the_memory_and_does_not_use_it() {
    let test = "fabrics::a_target_on_tcp_takes_the_memory_and_does_not_use_it";
    if kernel_has(test, "nvmet-tcp") && kernel_has(test, "nvme-tcp") {
        loopback_up();
        data_goes_through_system_memory("tcp");
    }
}
