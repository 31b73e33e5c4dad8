//! limosa on an application's own VkDevice, and the application's own submissions beside limosa's: on both views, and
//! under the eyes of Vulkan's validation layer where it is installed.

#![allow(clippy::unwrap_used)] // helpers of tests are tests
#![allow(clippy::cast_precision_loss)] // small numbers

#[path = "common/application.rs"]
mod application;
mod common;

use application::{Copier, Leaves, Own};
use ash::vk;
use common::failure::{BLOCK_WORDS, Kit, Watchdog, child, is_child, told};
use common::gate::Gate;
use common::views::{ALL, FAULTING, SPARSE, Way};
use common::{builder, skip};
use limosa::raw::{Point, Vulkan, device_address};
use limosa::{Error, GpuError, GpuPtr, Home, PagerError, ViewKind};
use limosa_shaders::triad;

const WORDS: usize = 5 * BLOCK_WORDS + 3;

/// What limosa made on a device of an application's goes before the device.
struct On {
    vulkan: Vulkan,
    /// Last.
    own: Own,
}

impl On {
    fn new(test: &str, leaves: Leaves) -> Option<Self> {
        let (own, vulkan) = Own::with(test, leaves)?;
        Some(Self { vulkan: vulkan.unwrap(), own })
    }

    fn kit(&self, way: Way) -> Kit {
        Kit::of(self.vulkan.context(way.of(builder())).unwrap())
    }
}

#[test]
fn limosa_works_on_an_applications_device() {
    let test = "limosa_works_on_an_applications_device";
    let _watchdog = Watchdog::new(test);
    for way in ALL {
        let Some(on) = On::new(test, Leaves::Nothing) else { return };
        let kit = on.kit(*way);
        assert_eq!((kit.context.view(), on.vulkan.device().handle()), (way.view, on.own.device.handle()));
        assert_eq!(on.vulkan.physical_device(), on.own.physical);
        assert_eq!(on.vulkan.instance().handle(), on.own.instance.handle());
        assert_eq!(on.vulkan.queue_family(), on.own.family);
        let heap = kit.heap();
        let b = heap.vec_with(WORDS, |i| i as f32).unwrap();
        let c = heap.vec_with(WORDS, |i| 2.0 * i as f32).unwrap();
        let mut a = heap.vec_zeroed::<f32>(WORDS).unwrap();
        let mut expected = vec![0.0f32; WORDS];
        triad::twin(&mut expected, &b.read().unwrap(), &c.read().unwrap(), 3.0);
        let kernel = kit.context.kernel("triad", triad::KERNEL.spirv).unwrap();
        let launch = kit.queue.launch(&kernel, WORDS as u64).args((a.writes(), b.reads(), c.reads()));
        // SAFETY: triad touches its three arrays as declared.
        unsafe { launch.args((WORDS as u64, 3.0f32, 0u32)).submit() }.unwrap().wait().unwrap();
        assert!(a.read().unwrap()[..] == expected[..], "{way:?}");
        kit.works();
    }
}

/// The application's dispatch, which waits on the device for limosa's launch, and nothing on the host does.
fn reads_what_a_launch_wrote(vulkan: &Vulkan, kit: &Kit, home: Home) {
    let mut vec = kit.heap().in_home(home).vec_zeroed::<u32>(WORDS).unwrap();
    let copier = Copier::new(vulkan, WORDS as u64);
    let address = device_address(&kit.context, vec.ptr(0)).unwrap();
    let last = device_address(&kit.context, vec.ptr(WORDS - 1)).unwrap();
    assert_eq!(last, address + 4 * (WORDS as u64 - 1));
    for value in 1..20u32 {
        let event = kit.fill(&mut vec, value).unwrap();
        let point = Point::of(&event).unwrap();
        let words = copier.copy(vulkan, address, Some((point.semaphore(), point.value())));
        assert!(words.iter().all(|word| *word == value), "{value}: {:?}", &words[..8]);
    }
    assert!(vec.read().unwrap().iter().all(|word| *word == 19));
}

#[test]
fn an_applications_dispatch_waits_for_a_launch_and_reads_what_it_wrote() {
    let test = "an_applications_dispatch_waits_for_a_launch_and_reads_what_it_wrote";
    let _watchdog = Watchdog::new(test);
    for way in [FAULTING, SPARSE] {
        let Some(on) = On::new(test, Leaves::Nothing) else { return };
        let kit = on.kit(way);
        for home in [Home::Migrating, Home::Shared] {
            reads_what_a_launch_wrote(&on.vulkan, &kit, home);
        }
        let outside = GpuPtr::<u32>::from_address(kit.heap().range().start.0 + kit.heap().range().len);
        assert_eq!(device_address(&kit.context, outside), None);
        assert_eq!(device_address(&kit.context, GpuPtr::<u32>::null()), None);
    }
    // The way out of a device that limosa owns.
    let Some(kit) = Kit::new(test, builder()) else { return };
    let vulkan = Vulkan::of(&kit.context);
    reads_what_a_launch_wrote(&vulkan, &kit, Home::Migrating);
}

/// Where a kernel faults, the application's does, too.
#[test]
fn an_applications_dispatch_brings_what_the_cpu_has() {
    let test = "an_applications_dispatch_brings_what_the_cpu_has";
    let _watchdog = Watchdog::new(test);
    let Some(on) = On::new(test, Leaves::Nothing) else { return };
    let kit = on.kit(FAULTING);
    let mut vec = kit.heap().vec_with(WORDS, |_| 0u32).unwrap();
    let copier = Copier::new(&on.vulkan, WORDS as u64);
    let address = device_address(&kit.context, vec.ptr(0)).unwrap();
    for value in 1..10u32 {
        vec.write().unwrap().fill(value);
        assert!(copier.copy(&on.vulkan, address, None).iter().all(|word| *word == value));
    }
    assert!(kit.heap().counters().gpu_read_faults > 0);
}

/// A queue runs in order, so that an early point would not show in what a dispatch reads: it is looked at.
#[test]
fn a_point_is_reached_when_its_launch_has_completed() {
    let test = "a_point_is_reached_when_its_launch_has_completed";
    let _watchdog = Watchdog::new(test);
    for way in [FAULTING, SPARSE] {
        let Some(on) = On::new(test, Leaves::Nothing) else { return };
        let kit = on.kit(way);
        let mut vec = kit.heap().vec_zeroed::<u32>(WORDS).unwrap();
        let gate = Gate::close(&kit, &kit.queue);
        let event = kit.fill(&mut vec, 3).unwrap();
        let point = Point::of(&event).unwrap();
        // SAFETY: the point keeps its semaphore.
        let now = || unsafe { on.own.device.get_semaphore_counter_value(point.semaphore()) }.unwrap();
        assert!(now() < point.value() && gate.is_closed());
        gate.open();
        let (semaphores, values) = ([point.semaphore()], [point.value()]);
        let wait = vk::SemaphoreWaitInfo::default().semaphores(&semaphores).values(&values);
        // SAFETY: as above.
        unsafe { on.own.device.wait_semaphores(&wait, u64::MAX) }.unwrap();
        assert!(event.is_complete().unwrap());
        assert_eq!(now(), point.value(), "nothing came later");
    }
}

/// Launches that wait for the application's semaphore begin in the order of its values, and nothing else waits.
#[test]
fn launches_wait_for_an_applications_semaphore() {
    let test = "launches_wait_for_an_applications_semaphore";
    let _watchdog = Watchdog::new(test);
    for way in [FAULTING, SPARSE] {
        let Some(on) = On::new(test, Leaves::Nothing) else { return };
        let mut kind = vk::SemaphoreTypeCreateInfo::default().semaphore_type(vk::SemaphoreType::TIMELINE);
        let create = vk::SemaphoreCreateInfo::default().push_next(&mut kind);
        // SAFETY: the structures live through the call.
        let semaphore = unsafe { on.own.device.create_semaphore(&create, None) }.unwrap();
        let reach = |value| {
            let signal = vk::SemaphoreSignalInfo::default().semaphore(semaphore).value(value);
            // SAFETY: the values ascend.
            unsafe { on.own.device.signal_semaphore(&signal) }.unwrap();
        };
        {
            let kit = on.kit(way);
            let other = kit.context.queue().unwrap();
            let mut vec = kit.heap().vec_zeroed::<u32>(WORDS).unwrap();
            let mut launched = Vec::new();
            for value in 1..=5u64 {
                // SAFETY: the semaphore goes last, and the values are signalled below.
                let ready = unsafe { limosa::raw::event(&kit.queue, semaphore, value) };
                let queue = if value % 2 == 0 { &other } else { &kit.queue };
                let launch = queue.launch(&kit.fill, 1000).args((vec.writes(), WORDS as u64));
                let launch = launch.args((u32::try_from(value).unwrap(), 0u32)).after(&ready);
                // SAFETY: fill writes `vec`.
                launched.push(unsafe { launch.submit() }.unwrap());
            }
            let third = kit.context.queue().unwrap();
            let mut free = kit.heap().vec_zeroed::<u32>(WORDS).unwrap();
            kit.fill_on(&third, &mut free, 8).unwrap().wait().unwrap();
            assert!(launched.iter().all(|event| !event.is_complete().unwrap()), "nobody has signalled");
            for (value, event) in (1..=5u64).zip(&launched) {
                reach(value);
                // Nobody but the reaper moves it on.
                while !event.is_complete().unwrap() {
                    std::thread::yield_now();
                }
            }
            assert!(vec.read().unwrap().iter().all(|word| *word == 5));
            kit.works();
        }
        // SAFETY: nothing of limosa's uses it any more.
        unsafe { on.own.device.destroy_semaphore(semaphore, None) };
    }
}

#[test]
fn two_contexts_and_the_application_share_a_queue() {
    let test = "two_contexts_and_the_application_share_a_queue";
    let _watchdog = Watchdog::new(test);
    let Some(on) = On::new(test, Leaves::Nothing) else { return };
    let kits = [on.kit(FAULTING), on.kit(SPARSE)];
    std::thread::scope(|scope| {
        for kit in &kits {
            scope.spawn(|| (0..30).for_each(|_| kit.works()));
        }
        for kit in &kits {
            scope.spawn(|| reads_what_a_launch_wrote(&on.vulkan, kit, Home::Migrating));
        }
    });
    let [one, two] = &kits;
    let mut vec = two.heap().vec_zeroed::<u32>(10).unwrap();
    let launch = two.queue.launch(&one.fill, 1).args((vec.writes(), 10u64, 1u32, 0u32));
    // SAFETY: nothing is launched.
    let error = unsafe { launch.submit() }.map(|_| ()).unwrap_err();
    assert!(matches!(error, Error::Pager(PagerError::ForeignKernel { .. })), "one device, two heaps: {error}");
}

#[test]
fn a_device_that_lacks_something_is_refused_by_name() {
    let test = "a_device_that_lacks_something_is_refused_by_name";
    let _watchdog = Watchdog::new(test);
    for (leaves, named) in [
        (Leaves::TimelineSemaphore, "timelineSemaphore"),
        (Leaves::BufferDeviceAddress, "bufferDeviceAddress"),
        (Leaves::ShaderInt64, "shaderInt64"),
        (Leaves::Synchronization2, "synchronization2"),
        (Leaves::ApiVersion, "Vulkan 1.3"),
        (Leaves::TheQueue, "queue 1 of family 0"),
    ] {
        let Some((own, vulkan)) = Own::with(test, leaves) else { return };
        let error = vulkan.map(|_| ()).unwrap_err();
        let text = error.to_string();
        let Error::Pager(PagerError::Gpu(GpuError::MadeWithout { missing, .. })) = error else { panic!("{text}") };
        assert!(missing.iter().any(|one| one.contains(named)), "{leaves:?}: {text}");
        assert!(text.contains(named) && text.contains("Requirements"), "{text}");
        // All jobs are the one queue's.
        assert!(missing.len() == 1 || leaves == Leaves::TheQueue, "{text}");
        drop(own);
    }
    // What only one view needs leaves the other.
    for (leaves, refused, left) in
        [(Leaves::Extensions, ViewKind::Import, ViewKind::Sparse), (Leaves::Sparse, ViewKind::Sparse, ViewKind::Import)]
    {
        let Some(on) = On::new(test, leaves) else { return };
        let error = on.vulkan.context(builder().view(refused)).map(|_| ()).unwrap_err();
        let text = error.to_string();
        let named = if refused == ViewKind::Import { "VK_EXT_external_memory_host" } else { "sparseBinding" };
        assert!(text.contains(named), "{text}");
        let kit = Kit::of(on.vulkan.context(builder()).unwrap());
        assert_eq!(kit.context.view(), left);
        kit.works();
    }
}

/// Whatever is dropped last, nothing of limosa's is left on the device, and nothing of the application's is gone.
#[test]
fn the_device_outlives_what_limosa_made_in_any_order() {
    let test = "the_device_outlives_what_limosa_made_in_any_order";
    let _watchdog = Watchdog::new(test);
    for order in 0..4 {
        let Some(On { vulkan, own }) = On::new(test, Leaves::Nothing) else { return };
        let kit = Kit::of(vulkan.context(SPARSE.of(builder())).unwrap());
        let mut vec = kit.heap().vec_zeroed::<u32>(WORDS).unwrap();
        let event = kit.fill(&mut vec, 7).unwrap();
        let point = Point::of(&event).unwrap();
        match order {
            0 => drop((vulkan, kit, vec, event, point)),
            1 => drop((point, event, vec, kit, vulkan)),
            2 => drop((kit, vulkan, event, point, vec)),
            _ => drop((event, kit, point, vec, vulkan)),
        }
        // SAFETY: the device is the application's still.
        unsafe { own.device.device_wait_idle() }.unwrap();
    }
}

const LAYER: &str = "VK_LAYER_KHRONOS_validation";
const WATCHED: &str = "validation";

/// Whether the layer is installed.
fn has_layer() -> bool {
    // SAFETY: loads the system's loader; a query.
    let layers = unsafe { ash::Entry::load().map(|entry| entry.enumerate_instance_layer_properties()) };
    let layers = layers.ok().and_then(Result::ok).unwrap_or_default();
    layers.iter().any(|layer| layer.layer_name_as_c_str().is_ok_and(|name| name.to_str() == Ok(LAYER)))
}

#[test]
fn the_validation_layer_has_nothing_to_say() {
    let test = "the_validation_layer_has_nothing_to_say";
    if is_child(WATCHED) {
        let Some(on) = On::new(test, Leaves::Nothing) else { return };
        for way in ALL {
            on.kit(*way).works();
        }
        let kit = on.kit(SPARSE);
        reads_what_a_launch_wrote(&on.vulkan, &kit, Home::Migrating);
        reads_what_a_launch_wrote(&on.vulkan, &kit, Home::Shared);
        drop((kit, on));
        let Some(kit) = Kit::new(test, builder()) else { return };
        return kit.works();
    }
    if is_child("a mistake") {
        let Some(on) = On::new(test, Leaves::Nothing) else { return };
        // SAFETY: it is not: the semaphore outlives its device, which the layer tells.
        unsafe { on.own.device.create_semaphore(&vk::SemaphoreCreateInfo::default(), None) }.unwrap();
        return;
    }
    if !has_layer() {
        return skip(test, "validation", "VK_LAYER_KHRONOS_validation is not installed");
    }
    let watched = |case| {
        let output = child(test, case, |command| {
            command.env("VK_INSTANCE_LAYERS", LAYER);
        });
        assert!(output.status.success(), "{}", told(&output));
        told(&output)
    };
    assert!(watched("a mistake").contains("VUID"), "the layer does not look");
    let said = watched(WATCHED);
    assert!(!said.contains("VUID") && !said.contains("Validation"), "{said}");
}
