//! Events: callbacks, futures and user events, on every way to reach a heap. What waits is told once, with what `wait`
//! gives, by threads that may do anything; and nothing hangs, whatever fails.

#![cfg(feature = "inject")]
#![allow(clippy::unwrap_used)] // helpers of tests are tests

mod common;

use std::future::{Future, IntoFuture};
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, TryRecvError, channel};
use std::sync::{Arc, Barrier, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;

use common::builder;
use common::failure::{BLOCK_WORDS, Kit, turn};
use common::gate::Gate;
use common::views::{ALL, BESIDE_KERNELS, DECLARED, FAULTING, Way, cases};
use common::words::{all_are, wait_until};
use limosa::{Error, Event, PagerError, Result, UnifiedVec, inject};
use limosa_shaders::fill;

fn kits(test: &str, ways: &[Way]) -> impl Iterator<Item = Kit> {
    ways.iter().filter_map(|way| way.kit(test, builder()))
}

fn words(kit: &Kit) -> UnifiedVec<u32> {
    kit.heap().vec_zeroed(BLOCK_WORDS).unwrap()
}

/// Has `vec` filled after all of `events`.
fn fill_after(kit: &Kit, vec: &mut UnifiedVec<u32>, value: u32, events: &[Event]) -> Event {
    let count = vec.len() as u64;
    let launch = kit.queue.launch(&kit.fill, count.div_ceil(fill::ITEMS)).after_all(events);
    // SAFETY: fill writes the words of `vec`, as declared.
    unsafe { launch.args((vec.writes(), count, value, 0u32)).submit() }.unwrap()
}

/// What a callback on the event is given.
fn told(event: &Event) -> Receiver<Result<()>> {
    let (send, receive) = channel();
    event.on_complete(move |result| send.send(result).unwrap()).unwrap();
    receive
}

fn is_silent(told: &Receiver<Result<()>>) -> bool {
    matches!(told.try_recv(), Err(TryRecvError::Empty))
}

/// Who failed, and why, of something that was to run after something else.
fn after_failed(result: Result<()>) -> (String, String, String) {
    match result.unwrap_err() {
        Error::Pager(PagerError::AfterFailed { what, dependency, reason }) => (what, dependency, reason),
        other => panic!("{other}"),
    }
}

#[test]
fn callbacks_are_called_though_nobody_waits() {
    let _turn = turn("callbacks");
    for kit in kits("callbacks", BESIDE_KERNELS) {
        let (mut vec, gate) = (words(&kit), Gate::close(&kit, &kit.queue));
        let filled = kit.fill(&mut vec, 5).unwrap();
        let (first, second) = (told(&filled), told(&filled));
        assert!(is_silent(&first) && is_silent(&second));
        gate.open();
        first.recv().unwrap().unwrap();
        second.recv().unwrap().unwrap();
        // Once, and also of what is over.
        assert!(first.recv().is_err());
        told(&filled).recv().unwrap().unwrap();
        assert!(all_are(&vec, 5));
    }
}

#[test]
fn callbacks_may_wait_for_each_other() {
    let _turn = turn("wait for each other");
    for kit in kits("wait for each other", BESIDE_KERNELS) {
        const MANY: usize = 40;
        let (mut vec, gate) = (words(&kit), Gate::close(&kit, &kit.queue));
        let filled = kit.fill(&mut vec, 5).unwrap();
        let (all, done) = (Arc::new(Barrier::new(MANY)), kit.context.user_event());
        let (send, receive) = channel();
        for _ in 0..MANY {
            let (all, send, done) = (Arc::clone(&all), send.clone(), done.event());
            let wait = move |result: Result<()>| {
                result.unwrap();
                all.wait();
                send.send(done.wait()).unwrap();
            };
            filled.on_complete(wait).unwrap();
        }
        // Registered last, while the others keep their threads.
        gate.open();
        filled.wait().unwrap();
        filled.on_complete(move |_| done.complete()).unwrap();
        (0..MANY).for_each(|_| receive.recv().unwrap().unwrap());
    }
}

#[test]
fn callbacks_may_submit_and_drop_everything() {
    let _turn = turn("drop everything");
    for (way, mode) in cases(BESIDE_KERNELS) {
        let Some(kit) = way.kit("drop everything", builder().fault_mode(mode)) else { return };
        let gate = Gate::close(&kit, &kit.queue);
        let mut vec = words(&kit);
        let event = kit.fill(&mut vec, 5).unwrap();
        let (send, receive) = channel();
        let drop_all = move |result: Result<()>| {
            result.unwrap();
            kit.fill(&mut vec, 6).unwrap().wait().unwrap();
            let right = all_are(&vec, 6);
            drop((vec, kit));
            send.send(right).unwrap();
        };
        event.clone().on_complete(drop_all).unwrap();
        drop(event);
        gate.open();
        drop(gate);
        assert!(receive.recv().unwrap());
    }
}

#[test]
fn panics_of_callbacks_and_wakers_are_counted() {
    struct Spiteful;
    impl Drop for Spiteful {
        fn drop(&mut self) {
            assert!(std::thread::panicking(), "dropped, it panics again");
        }
    }
    impl Wake for Spiteful {
        fn wake(self: Arc<Self>) {
            std::mem::forget(self);
            panic!("a waker's");
        }
    }
    let _turn = turn("panics");
    for kit in kits("panics", &[FAULTING]) {
        let (mut vec, gate) = (words(&kit), Gate::close(&kit, &kit.queue));
        let filled = kit.fill(&mut vec, 5).unwrap();
        filled.on_complete(|_| std::panic::panic_any(Spiteful)).unwrap();
        let mut future = pin!(filled.clone().into_future());
        let waker = Waker::from(Arc::new(Spiteful));
        assert!(future.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        std::mem::forget(waker);
        gate.open();
        wait_until(|| kit.heap().counters().callbacks_panicked == 2);
        kit.works();
    }
}

/// Counts how often it was woken, and by the way unparks a thread.
struct Counting {
    thread: Thread,
    woken: AtomicUsize,
}

impl Counting {
    fn new() -> Arc<Self> {
        Arc::new(Self { thread: std::thread::current(), woken: AtomicUsize::new(0) })
    }
}

impl Wake for Counting {
    fn wake(self: Arc<Self>) {
        self.woken.fetch_add(1, Ordering::SeqCst);
        self.thread.unpark();
    }
}

fn poll<F: Future>(future: Pin<&mut F>, waker: &Arc<Counting>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(&Waker::from(Arc::clone(waker))))
}

fn block_on<F: IntoFuture>(future: F) -> F::Output {
    let (mut future, waker) = (pin!(future.into_future()), Counting::new());
    loop {
        match poll(future.as_mut(), &waker) {
            Poll::Ready(output) => return output,
            Poll::Pending => std::thread::park(),
        }
    }
}

#[test]
fn events_are_futures() {
    let _turn = turn("futures");
    for kit in kits("futures", ALL) {
        let (mut vec, mut other) = (words(&kit), words(&kit));
        let go = kit.context.user_event();
        let filled = fill_after(&kit, &mut vec, 5, &[go.event()]);
        let chain = async {
            (&filled).await?;
            kit.fill(&mut other, 6)?.await?;
            filled.clone().await
        };
        std::thread::scope(|scope| {
            let polled = scope.spawn(|| block_on(&filled));
            go.complete();
            polled.join().unwrap().unwrap();
        });
        block_on(chain).unwrap();
        assert!(all_are(&vec, 5) && all_are(&other, 6));
    }
}

#[test]
fn the_last_to_poll_is_woken() {
    let _turn = turn("wakers");
    for kit in kits("wakers", &[FAULTING]) {
        let go = kit.context.user_event();
        let (mut kept, mut dropped) = (Box::pin(go.event().into_future()), Box::pin(go.event().into_future()));
        let (first, last, nobody) = (Counting::new(), Counting::new(), Counting::new());
        assert!(poll(kept.as_mut(), &first).is_pending() && poll(kept.as_mut(), &last).is_pending());
        assert!(poll(dropped.as_mut(), &nobody).is_pending());
        drop(dropped);
        // Who is not to be woken is let go of at once.
        assert_eq!([&first, &last, &nobody].map(Arc::strong_count), [1, 2, 1]);
        let event = go.event();
        let all_told = (0..3).map(|_| told(&event)).collect::<Vec<_>>();
        go.complete();
        all_told.iter().for_each(|told| told.recv().unwrap().unwrap());
        while poll(kept.as_mut(), &last).is_pending() {
            std::thread::park();
        }
        assert!(poll(kept.as_mut(), &first).is_ready(), "ready, once it was");
        let woken = |waker: &Counting| waker.woken.load(Ordering::SeqCst);
        assert_eq!((woken(&first), woken(&nobody)), (0, 0));
    }
}

#[test]
fn user_events_let_go_on_or_fail() {
    let _turn = turn("user events");
    for kit in kits("user events", ALL) {
        let (mut one, mut two, mut three) = (words(&kit), words(&kit), words(&kit));
        let (go, stay, lost) = (kit.context.user_event(), kit.context.user_event(), kit.context.user_event());
        let first = fill_after(&kit, &mut one, 1, &[go.event()]);
        let failed = fill_after(&kit, &mut two, 2, &[go.event(), stay.event()]);
        let dropped = fill_after(&kit, &mut two, 3, &[lost.event()]);
        let chained = fill_after(&kit, &mut two, 4, &[first.clone(), dropped.clone()]);
        // In order behind what fails, and not after it.
        let last = kit.fill(&mut three, 5).unwrap();
        let notices = [&first, &failed, &dropped, &chained, &last].map(told);
        assert!(notices.iter().all(is_silent) && !last.is_complete().unwrap());
        drop(lost);
        assert!(notices.iter().all(is_silent) && !chained.is_complete().unwrap());
        stay.fail("no ticket");
        go.complete();
        first.wait().unwrap();
        last.wait().unwrap();
        let [first, failed_told, dropped_told, chained_told, last] = notices.map(|told| told.recv().unwrap());
        first.unwrap();
        last.unwrap();
        for result in [failed.wait(), failed_told, failed.wait()] {
            let (what, dependency, reason) = after_failed(result);
            assert_eq!((&*what, &*dependency, &*reason), ("kernel fill", "the user event", "no ticket"));
        }
        let (_, _, reason) = after_failed(dropped_told);
        assert!(reason.contains("dropped before it was completed"), "{reason}");
        for result in [chained.wait(), chained_told] {
            // Both that did not run, and why the first did not.
            let (what, dependency, root) = after_failed(result);
            assert_eq!((&*what, &*dependency, &root), ("kernel fill", "kernel fill", &reason));
        }
        assert!(dropped.is_complete().unwrap());
        assert!(all_are(&one, 1) && all_are(&two, 0) && all_are(&three, 5));
    }
}

#[test]
fn user_events_are_waited_for_by_threads() {
    let _turn = turn("threads");
    for kit in kits("threads", &[FAULTING]) {
        let (go, stay) = (kit.context.user_event(), kit.context.user_event());
        let (good, bad) = (go.event(), stay.event());
        assert!(!good.is_complete().unwrap());
        let waiting = std::thread::spawn(move || (good.wait(), bad.wait(), bad.wait()));
        go.complete();
        stay.fail("enough");
        let (good, bad, again) = waiting.join().unwrap();
        good.unwrap();
        for error in [bad, again].map(Result::unwrap_err) {
            assert_eq!(error.to_string(), "the user event failed: enough");
        }
    }
}

#[test]
fn what_waits_for_a_stray_launch_does_not_run() {
    let _turn = turn("stray");
    for kit in kits("stray", &[FAULTING, DECLARED]) {
        let freed = words(&kit).ptr(0).address();
        let mut vec = words(&kit);
        let nowhere = freed + (512 << 20);
        let stray = kit.fill_at(nowhere, 16, 1).unwrap();
        let after = fill_after(&kit, &mut vec, 7, std::slice::from_ref(&stray));
        let (_, dependency, reason) = after_failed(after.wait());
        assert_eq!(dependency, "kernel fill");
        assert_eq!(reason, stray.wait().unwrap_err().to_string());
        assert!(all_are(&vec, 0));
        kit.works();
    }
}

#[test]
fn events_of_other_contexts_are_waited_for() {
    let _turn = turn("foreign");
    for way in [FAULTING, DECLARED] {
        let Some((here, there)) = way.kit("foreign", builder()).zip(way.kit("foreign", builder())) else { return };
        let (mut mine, mut theirs, mut never) = (words(&here), words(&there), words(&here));
        let (go, stay) = (there.context.user_event(), there.context.user_event());
        let first = fill_after(&there, &mut theirs, 3, &[go.event()]);
        let gone = fill_after(&there, &mut theirs, 4, &[stay.event()]);
        let second = fill_after(&here, &mut mine, 4, std::slice::from_ref(&first));
        let third = fill_after(&here, &mut never, 5, &[gone]);
        let direct = fill_after(&here, &mut never, 6, &[stay.event()]);
        let told = told(&second);
        assert!(is_silent(&told));
        // Nobody there waits, nor is the context kept by anybody but what waits.
        drop((first, theirs, there));
        go.complete();
        told.recv().unwrap().unwrap();
        assert!(all_are(&mine, 4));
        drop(stay);
        for (event, name) in [(third, "kernel fill of another context"), (direct, "the user event of another context")]
        {
            let (what, dependency, reason) = after_failed(event.wait());
            assert_eq!((&*what, &*dependency), ("kernel fill", name));
            assert!(reason.contains("dropped before"), "{reason}");
        }
        assert!(all_are(&never, 0));
    }
}

#[test]
fn a_queue_is_dropped_while_it_waits_for_its_own_thread() {
    let _turn = turn("queue dropped");
    for kit in kits("queue dropped", ALL) {
        let Kit { queue, fill, context, .. } = kit;
        let (mut vec, mut pinned) =
            (context.heap().vec_zeroed::<u32>(BLOCK_WORDS).unwrap(), context.heap().vec_zeroed(BLOCK_WORDS).unwrap());
        let go = context.user_event();
        let launch = |queue: &limosa::Queue, vec: &mut UnifiedVec<u32>, after: &[Event]| {
            let count = vec.len() as u64;
            let launch = queue.launch(&fill, count.div_ceil(fill::ITEMS)).after_all(after);
            // SAFETY: fill writes the words of `vec`, as declared.
            unsafe { launch.args((vec.writes(), count, 8u32, 0u32)).submit() }.unwrap()
        };
        let event = launch(&queue, &mut vec, &[go.event()]);
        let second = context.queue().unwrap();
        let other = launch(&second, &mut pinned, &[go.event()]);
        drop((queue, second));
        assert!(!event.is_complete().unwrap());
        go.complete();
        event.wait().unwrap();
        other.wait().unwrap();
        assert!(all_are(&vec, 8) && all_are(&pinned, 8));
        // And when nobody is left but the event itself.
        let (queue, go) = (context.queue().unwrap(), context.user_event());
        let told = told(&launch(&queue, &mut vec, &[go.event()]));
        drop((queue, context, pinned));
        go.complete();
        told.recv().unwrap().unwrap();
        assert!(all_are(&vec, 8));
    }
}

#[test]
fn loss_of_the_device_is_told_to_all() {
    let _turn = turn("loss");
    for kit in kits("loss", BESIDE_KERNELS) {
        let (mut vec, mut other) = (words(&kit), words(&kit));
        let (gate, go) = (Gate::close(&kit, &kit.queue), kit.context.user_event());
        let running = kit.fill(&mut vec, 1).unwrap();
        let waiting = fill_after(&kit, &mut other, 1, &[go.event()]);
        let prefetch = kit.queue.prefetch(limosa::Side::Device, &vec).after(&go.event()).submit().unwrap();
        let (first, second, third) = (told(&running), told(&waiting), told(&prefetch));
        let user = told(&go.event());
        let polled = Arc::new(Mutex::new(Box::pin(waiting.clone().into_future())));
        let waker = Counting::new();
        assert!(poll(polled.lock().unwrap().as_mut(), &waker).is_pending());
        inject::lose_device();
        gate.open();
        let is_lost = |result: Result<()>| assert!(result.unwrap_err().is_device_lost());
        is_lost(kit.queue.wait_idle());
        // It had run before the loss was noticed, or not.
        let _ = first.recv().unwrap();
        is_lost(second.recv().unwrap());
        is_lost(third.recv().unwrap());
        is_lost(waiting.wait());
        is_lost(waiting.wait());
        is_lost(block_on(&waiting));
        wait_until(|| waker.woken.load(Ordering::SeqCst) == 1);
        // The application's events are its own.
        assert!(is_silent(&user));
        go.complete();
        user.recv().unwrap().unwrap();
        assert!(kit.fill(&mut other, 1).is_err());
        inject::find_device();
    }
}

#[test]
fn threads_for_notices_end() {
    fn threads() -> usize {
        let names = std::fs::read_dir("/proc/self/task").unwrap().flatten();
        let names = names.filter_map(|task| std::fs::read_to_string(task.path().join("comm")).ok());
        names.filter(|name| name.trim() == "limosa-notice").count()
    }
    let _turn = turn("threads end");
    for kit in kits("threads end", &[FAULTING]) {
        let go = kit.context.user_event();
        let all = Arc::new(Barrier::new(9));
        for _ in 0..8 {
            let all = Arc::clone(&all);
            let meet = move |_| {
                all.wait();
            };
            go.event().on_complete(meet).unwrap();
        }
        assert!(threads() >= 1, "one is there before it is needed");
        go.complete();
        all.wait();
        wait_until(|| threads() == 0);
        told(&kit.fill(&mut words(&kit), 1).unwrap()).recv().unwrap().unwrap();
        drop(kit);
        wait_until(|| threads() == 0);
    }
}

#[test]
fn what_a_lost_device_had_fails_what_waits_for_it_in_another_context() {
    let _turn = turn("loss elsewhere");
    for way in BESIDE_KERNELS {
        let pair = [way.kit("loss elsewhere", builder()), way.kit("loss elsewhere", builder())];
        let [Some(one), Some(other)] = pair else { continue };
        let (mut vec, untouched) = (words(&one), words(&one));
        let gate = Gate::close(&one, &one.queue);
        let running = one.fill(&mut vec, 1).unwrap();
        let marker = other.queue.marker([&running]).unwrap();
        inject::lose_device();
        // A guard finds the loss; it must not take the launch for done.
        drop(untouched.read());
        assert!(marker.wait().is_err() && running.wait().unwrap_err().is_device_lost(), "{way:?}");
        gate.open();
        inject::find_device();
    }
}

#[test]
fn a_marker_waits_for_what_was_submitted_before_it_only() {
    let _turn = turn("marker out of order");
    for kit in kits("marker out of order", BESIDE_KERNELS) {
        let queue = kit.context.queue_builder().out_of_order().build().unwrap();
        let (mut vec, go) = (words(&kit), kit.context.user_event());
        let fill = queue.fill(&mut vec, 1u32).after(&go.event()).submit().unwrap();
        let marker = queue.marker([]).unwrap();
        // It passes both.
        let gate = Gate::close(&kit, &queue);
        go.fail("it is not to be");
        assert!(fill.wait().is_err());
        marker.wait().unwrap();
        assert!(gate.is_closed());
    }
}
