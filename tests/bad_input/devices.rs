//! Devices that are not there, and budgets and heaps that no device can have.

use limosa::{Context, DeviceChoice, Error, GpuError, OsError, PagerError};

use crate::common::failure::{BLOCK, Kit, MIB, Watchdog, child, is_child, told};
use crate::common::{builder, context};

fn pager(error: Error) -> PagerError {
    match error {
        Error::Pager(error) => error,
        other => panic!("{other:?}"),
    }
}

#[test]
fn no_vulkan_device_is_said_with_the_remedy() {
    const TEST: &str = "devices::no_vulkan_device_is_said_with_the_remedy";
    let _watchdog = Watchdog::new(TEST);
    if is_child("no device") {
        let error = Context::new().map(|_| ()).unwrap_err();
        let text = error.to_string();
        let kind = pager(error);
        assert!(matches!(kind, PagerError::Gpu(GpuError::NoDevice | GpuError::NoLoader(_))), "{kind:?}");
        assert!(text.contains("no Vulkan device") && text.contains("install"), "{text}");
        assert!(text.contains("VK_DRIVER_FILES"), "{text}");
        println!("told as meant");
        return;
    }
    let folder = std::env::temp_dir().join(format!("limosa-no-drivers-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    for drivers in [folder.join("no-such-file.json"), folder.clone()] {
        let output = child(TEST, "no device", |command| {
            command.env("VK_DRIVER_FILES", &drivers).env_remove("VK_ICD_FILENAMES").env_remove("VK_ADD_DRIVER_FILES");
        });
        assert!(output.status.success() && told(&output).contains("told as meant"), "{}", told(&output));
    }
    std::fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn a_device_that_is_not_there_is_named_beside_those_that_are() {
    let Some(context) = context("no such device", builder()) else { return };
    let there = context.adapter().name.clone();
    let choices = [
        (DeviceChoice::Name("Voodoo 2".into()), "Voodoo 2"),
        (DeviceChoice::Index(999), "999"),
        (DeviceChoice::Index(usize::MAX), "index"),
    ];
    for (choice, asked) in choices {
        let error = builder().device(choice).build().map(|_| ()).unwrap_err();
        let text = error.to_string();
        let PagerError::Gpu(GpuError::NoSuchDevice { wanted, available }) = pager(error) else { panic!("{text}") };
        assert!(wanted.contains(asked) && available.contains(&there), "{wanted} {available:?}");
        assert!(text.contains(asked) && text.contains(&there), "{text}");
    }
    // Upper and lower case alike, and by a part of the name.
    let part = there.to_uppercase();
    builder().device(DeviceChoice::Name(part)).build().unwrap();
}

#[test]
fn a_budget_below_the_minimum_names_both_and_the_minimum_works() {
    let Some(_) = context("budget", builder()) else { return };
    let _watchdog = Watchdog::new("budget");
    let least = match pager(builder().device_budget(0).build().map(|_| ()).unwrap_err()) {
        PagerError::BudgetTooSmall { minimum, .. } => minimum,
        other => panic!("{other:?}"),
    };
    assert!(least <= 16 * MIB, "{least}");
    for given in [0, 1, BLOCK, least - 1] {
        let error = builder().device_budget(given).build().map(|_| ()).unwrap_err();
        let text = error.to_string();
        let PagerError::BudgetTooSmall { given: told, minimum } = pager(error) else { panic!("{text}") };
        assert_eq!((told, minimum), (given, least));
        assert!(text.contains(&given.to_string()) && text.contains(&least.to_string()), "{text}");
    }
    for budget in [least, least + 1, 2 * least] {
        let built = builder().device_budget(budget).build();
        let context = built.unwrap_or_else(|error| panic!("a budget of {budget} bytes: {error}"));
        assert!(context.heap().device_budget() <= budget);
        Kit::of(context).works();
    }
}

#[test]
fn the_smallest_heap_and_the_smallest_limit_of_ram_open_or_say_why() {
    let Some(_) = context("small", builder()) else { return };
    for bytes in [0, 1, MIB, 2 * MIB, 4 * MIB, 8 * MIB, 16 * MIB] {
        for built in [builder().heap_size(bytes).build(), builder().host_limit(bytes).build()] {
            let Err(error) = built else { continue };
            let text = error.to_string();
            let kind = pager(error);
            let named = matches!(&kind, PagerError::HeapFull { .. } | PagerError::Os(OsError::OutOfMemory { .. }));
            assert!(named, "{bytes} bytes: {kind:?}");
            assert!(bytes < 16 * MIB, "{bytes} bytes do not suffice: {text}");
            assert!(text.contains("larger heap") || text.contains("raise its limit"), "{text}");
        }
    }
}

#[test]
fn heaps_beyond_the_address_space_are_refused() {
    let Some(_) = context("huge heaps", builder()) else { return };
    for bytes in [1 << 47, 1 << 56, u64::MAX / 2, u64::MAX] {
        let error = builder().heap_size(bytes).build().map(|_| ()).unwrap_err();
        let text = error.to_string();
        let PagerError::Os(OsError::AddressSpace { .. } | OsError::MemoryFile { .. }) = pager(error) else {
            panic!("{text}")
        };
        assert!(text.contains("lower the heap size"), "a remedy: {text}");
    }
    Kit::new("huge heaps", builder()).unwrap().works();
}
