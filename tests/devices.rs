//! Several contexts at once, on several devices where the loader lists several: all state is a context's own, and what is
//! of one is refused by another.

#![allow(clippy::unwrap_used)] // helpers of tests are tests

mod common;

use std::path::PathBuf;

use common::builder;
use common::failure::{Kit, Watchdog, child, is_child, told};
use limosa::{Adapter, Context, DeviceKind, Error, PagerError};

const TWO: &str = "two devices";

/// The manifest of the software driver that is installed here, if there is one.
fn manifest() -> Option<PathBuf> {
    let folders = ["/usr/share/vulkan/icd.d", "/usr/local/share/vulkan/icd.d", "/etc/vulkan/icd.d"];
    let files = folders.iter().filter_map(|folder| std::fs::read_dir(folder).ok()).flatten().flatten();
    let mut found = files.map(|file| file.path()).filter(|path| {
        let named = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("lvp_icd"));
        named && path.extension().is_some_and(|extension| extension == "json")
    });
    found.next()
}

/// Runs `test` in a process that has the software device twice. Gives whether this is that process.
fn with_two_devices(test: &str) -> bool {
    if is_child(TWO) {
        return true;
    }
    let Some(manifest) = manifest() else {
        common::skip(test, "lavapipe", "its manifest is in none of the usual folders");
        return false;
    };
    let folder = std::env::temp_dir().join(format!("limosa-{test}-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let drivers = ["first.json", "second.json"].map(|name| folder.join(name));
    for driver in &drivers {
        std::fs::copy(&manifest, driver).unwrap();
    }
    let list = std::env::join_paths(&drivers).unwrap();
    let output = child(test, TWO, |command| {
        command.env("VK_DRIVER_FILES", &list).env_remove("VK_ICD_FILENAMES").env_remove("VK_ADD_DRIVER_FILES");
    });
    std::fs::remove_dir_all(&folder).unwrap();
    assert!(output.status.success(), "{}", told(&output));
    print!("{}", String::from_utf8_lossy(&output.stdout));
    false
}

/// Two software devices; one twice where the loader lists only one.
fn two_devices(test: &str) -> Option<[Adapter; 2]> {
    let software: Vec<_> = match limosa::devices() {
        Ok(devices) => devices.into_iter().filter(|device| device.kind == DeviceKind::Cpu).collect(),
        Err(error) => {
            common::skip(test, "lavapipe", &error.to_string());
            return None;
        }
    };
    match &software[..] {
        [one, two, ..] => Some([one.clone(), two.clone()]),
        [one] => {
            println!("{test}: the loader lists one device, which is used twice");
            Some([one.clone(), one.clone()])
        }
        [] => {
            common::skip(test, "lavapipe", "no software device");
            None
        }
    }
}

fn kits(test: &str) -> Option<[Kit; 2]> {
    let [one, two] = two_devices(test)?;
    Some([Kit::new(test, builder().device(&one))?, Kit::new(test, builder().device(&two))?])
}

/// A sequence of numbers that is the same each time.
fn next(random: &mut u64) -> u64 {
    *random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    *random >> 33
}

/// Random work on a context, each result checked; some vectors cross over from `other`.
fn work(kit: &Kit, other: &Context, seed: u64) {
    let mut random = seed;
    let mut vecs: Vec<(limosa::UnifiedVec<u32>, u32)> = Vec::new();
    for round in 0..150u32 {
        let pick = usize::try_from(next(&mut random)).unwrap();
        match next(&mut random) % 6 {
            0 | 1 if vecs.len() < 12 => {
                let words = pick % 300_000 + 1;
                vecs.push((kit.heap().vec_with(words, |_| round).unwrap(), round));
            }
            2 if !vecs.is_empty() => drop(vecs.swap_remove(pick % vecs.len())),
            3 if !vecs.is_empty() => {
                let at = pick % vecs.len();
                kit.fill(&mut vecs[at].0, round).unwrap();
                vecs[at].1 = round;
            }
            4 if !vecs.is_empty() => {
                let (vec, value) = &vecs[pick % vecs.len()];
                assert_eq!(kit.sum(vec).unwrap(), u64::from(*value) * vec.len() as u64);
            }
            _ => {
                let there = other.heap().vec_with(pick % 20_000 + 1, |i| u32::try_from(i).unwrap()).unwrap();
                let here = kit.heap().vec_from(&there.read().unwrap()).unwrap();
                let n = here.len() as u64;
                assert_eq!(kit.sum(&here).unwrap(), n * (n - 1) / 2);
            }
        }
    }
    for (vec, value) in &vecs {
        assert!(vec.read().unwrap().iter().all(|word| word == value));
    }
}

#[test]
fn both_devices_work_at_once() {
    const TEST: &str = "both_devices_work_at_once";
    let _watchdog = Watchdog::new(TEST);
    if !with_two_devices(TEST) {
        return;
    }
    let Some([one, two]) = kits(TEST) else { return };
    let indices = [&one, &two].map(|kit| kit.context.adapter().index);
    println!("{TEST}: on devices {indices:?}");
    assert!(limosa::devices().unwrap().len() < 2 || indices[0] != indices[1]);
    let (first, second) = (&one, &two);
    std::thread::scope(|scope| {
        for seed in [1, 2] {
            scope.spawn(move || work(first, &second.context, seed));
            scope.spawn(move || work(second, &first.context, seed + 10));
        }
    });
    // Counters are a context's own, and so is the end of one.
    let before = two.heap().counters().launches;
    one.works();
    assert_eq!(two.heap().counters().launches, before);
    drop(one);
    two.works();
}

#[test]
fn what_is_of_one_context_is_refused_by_another() {
    const TEST: &str = "what_is_of_one_context_is_refused_by_another";
    let _watchdog = Watchdog::new(TEST);
    if !with_two_devices(TEST) {
        return;
    }
    let Some([one, two]) = kits(TEST) else { return };
    let names = [&one, &two].map(|kit| kit.context.adapter().to_string());
    let mut vec = one.heap().vec_zeroed::<u32>(5000).unwrap();
    let launches = two.heap().counters().launches;
    let memory = |error: Error| {
        let text = error.to_string();
        let Error::Pager(PagerError::ForeignMemory { kernel, start, len, owner, queue }) = error else {
            panic!("{text}")
        };
        assert_eq!((kernel.as_str(), start.0, len), ("fill", vec_start(&one, start.0), 20_000), "{text}");
        assert_eq!([owner, queue], names, "{text}");
        assert!(text.contains(&names[0]) && text.contains(&names[1]), "{text}");
    };
    let fill = |launch: limosa::Launch<'_>| {
        // SAFETY: nothing is launched; fill would write 5000 words of `vec`.
        unsafe { launch.args((5000u64, 1u32, 0u32)).submit() }.map(|_| ()).unwrap_err()
    };
    let launch = || two.queue.launch(&two.fill, 1000);
    memory(fill(launch().arg(vec.writes())));
    memory(fill(launch().arg(vec.overwrites())));
    memory(fill(launch().arg(vec.reads())));
    memory(fill(launch().arg(0u64).with(vec.slice(0..1).unwrap().reads())));
    memory(fill(launch().arg(0u64).keeps(vec.raw())));
    memory(fill(launch().arg(0u64).with_whole_heap().with_raw(vec.raw(), limosa::Access::Read)));

    let mut own = two.heap().vec_zeroed::<u32>(5000).unwrap();
    let error = fill(two.queue.launch(&one.fill, 1000).arg(own.writes()));
    let text = error.to_string();
    let Error::Pager(PagerError::ForeignKernel { kernel, made_for, queue }) = error else { panic!("{text}") };
    assert_eq!((kernel.as_str(), [made_for, queue]), ("fill", names.clone()), "{text}");

    assert_eq!(two.heap().counters().launches, launches, "nothing was launched");
    assert!(vec.read().unwrap().iter().chain(&own.read().unwrap()[..]).all(|word| *word == 0));
    // Each still works on its own, and a copy is another's.
    one.fill(&mut vec, 3).unwrap();
    let copy = two.heap().vec_from(&vec.read().unwrap()).unwrap();
    assert_eq!(two.sum(&copy).unwrap(), 15_000);
    one.works();
    two.works();
}

/// `start`, if it is in the heap of `kit`.
fn vec_start(kit: &Kit, start: u64) -> u64 {
    let range = kit.heap().range();
    range.offset_of(limosa::HostAddr(start)).map_or(0, |offset| range.start.0 + offset)
}
