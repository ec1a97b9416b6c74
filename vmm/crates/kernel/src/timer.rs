//! Timers: one host thread that tells others when a time has come, timerfd(2), and timers that send signals.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use vmm_abi::*;
use vmm_memory::AddressSpace;
use vmm_snapshot::{AlarmState, TimerState};

use crate::clock;
use crate::file::File;
use crate::kernel::{Kernel, ThreadShared};
use crate::wait::WaitQueue;

/// What is told when its time has come.
trait Expire: Send + Sync {
    /// Called by the timer thread, with no lock held.
    fn expire(&self);
}

/// Times by when they come; the second number tells equal ones apart.
type Times = BTreeMap<(u64, u64), Weak<dyn Expire>>;

#[derive(Default)]
struct TimerThread {
    times: Mutex<Times>,
    changed: Condvar,
    /// Held while one is told, and its process with it.
    telling: Mutex<()>,
}

static THREAD: OnceLock<Option<Arc<TimerThread>>> = OnceLock::new();

/// Waits until the timer thread holds nothing of a process that nobody else holds any more.
pub fn wait_for_timer_thread() {
    if let Some(Some(thread)) = THREAD.get() {
        drop(thread.telling.lock());
    }
}

fn timer_thread() -> Option<&'static Arc<TimerThread>> {
    let start = || {
        let thread = Arc::new(TimerThread::default());
        let own = Arc::clone(&thread);
        let builder = std::thread::Builder::new()
            .name("timers".into())
            .stack_size(64 << 10);
        builder.spawn(move || own.run()).ok().map(|_| thread)
    };
    THREAD.get_or_init(start).as_ref()
}

impl TimerThread {
    fn run(&self) {
        let mut times = self.times.lock();
        loop {
            let Some(((at, id), _)) = times.first_key_value() else {
                self.changed.wait(&mut times);
                continue;
            };
            let (at, id, now) = (*at, *id, clock::monotonic_ns());
            if now < at {
                let left = Duration::from_nanos(at.saturating_sub(now));
                self.changed.wait_for(&mut times, left);
                continue;
            }
            let due = times.remove(&(at, id));
            drop(times);
            let telling = self.telling.lock();
            // Only now: who has waited for the lock finds nothing held.
            if let Some(due) = due.and_then(|due| due.upgrade()) {
                due.expire();
            }
            drop(telling);
            times = self.times.lock();
        }
    }
}

/// A place in the list of the timer thread: never more than one per timer.
struct Slot {
    id: u64,
    at_ns: Mutex<Option<u64>>,
}

impl Slot {
    fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            at_ns: Mutex::new(None),
        }
    }

    /// Asks to be told at a monotonic time, or no more.
    fn set(&self, at_ns: Option<u64>, who: Weak<dyn Expire>) {
        let Some(thread) = timer_thread() else { return };
        let mut mine = self.at_ns.lock();
        let mut times = thread.times.lock();
        if let Some(before) = mine.take() {
            times.remove(&(before, self.id));
        }
        if let Some(at) = at_ns {
            times.insert((at, self.id), who);
            *mine = Some(at);
        }
        drop(times);
        thread.changed.notify_one();
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if let Some(at) = self.at_ns.get_mut().take()
            && let Some(thread) = timer_thread()
        {
            thread.times.lock().remove(&(at, self.id));
        }
    }
}

/// When a timer goes off.
#[derive(Clone, Copy, Debug, Default)]
struct Setting {
    /// Monotonic time of the next; 0 when disarmed.
    next_ns: u64,
    interval_ns: u64,
}

impl Setting {
    /// A setting as timer_settime(2) takes it.
    ///
    /// # Errors
    /// EINVAL for malformed times.
    fn of(id: i32, wanted: Itimerspec, absolute: bool) -> Result<Self, Errno> {
        let interval_ns = wanted.interval.to_ns().ok_or(Errno::EINVAL)?;
        let next_ns = match wanted.value.to_ns().ok_or(Errno::EINVAL)? {
            0 => 0,
            _ => clock::deadline(id, wanted.value, absolute)?,
        };
        Ok(Self {
            next_ns,
            interval_ns,
        })
    }

    /// What is left, in the form of timer_gettime(2).
    fn shown(self) -> Itimerspec {
        let now = clock::monotonic_ns();
        let next = match self.next_ns.checked_sub(now) {
            _ if self.next_ns == 0 => 0,
            Some(left) if left > 0 => left,
            _ if self.interval_ns == 0 => 0,
            // Gone off but not yet counted: the next of the row.
            _ => {
                let late = now.saturating_sub(self.next_ns);
                let late = late.checked_rem(self.interval_ns).unwrap_or(0);
                self.interval_ns.saturating_sub(late)
            }
        };
        Itimerspec {
            interval: Timespec::from_ns(self.interval_ns),
            value: Timespec::from_ns(next),
        }
    }

    /// How often it has gone off by now; moves on to the next time.
    fn count(&mut self) -> u64 {
        let now = clock::monotonic_ns();
        if self.next_ns == 0 || now < self.next_ns {
            return 0;
        }
        if self.interval_ns == 0 {
            self.next_ns = 0;
            return 1;
        }
        let late = now.saturating_sub(self.next_ns);
        let passed = late.checked_div(self.interval_ns).unwrap_or(0);
        let count = passed.saturating_add(1);
        let step = self.interval_ns.saturating_mul(count);
        self.next_ns = self.next_ns.saturating_add(step);
        count
    }

    fn state(self) -> TimerState {
        TimerState {
            next_ns: self.next_ns,
            interval_ns: self.interval_ns,
        }
    }

    fn restored(state: TimerState) -> Self {
        Self {
            next_ns: state.next_ns,
            interval_ns: state.interval_ns,
        }
    }

    fn next(self) -> Option<u64> {
        (self.next_ns > 0).then_some(self.next_ns)
    }
}

/// timerfd_create(2)
pub struct TimerFd {
    clock: i32,
    setting: Mutex<Setting>,
    queue: Arc<WaitQueue>,
    slot: Slot,
    me: Weak<TimerFd>,
}

impl TimerFd {
    /// A disarmed timer of a clock.
    ///
    /// # Errors
    /// EINVAL for a clock that timers cannot have.
    pub fn new(clock: i32) -> Result<Arc<Self>, Errno> {
        check_clock(clock)?;
        Ok(Arc::new_cyclic(|me| Self {
            clock,
            setting: Mutex::default(),
            queue: Arc::default(),
            slot: Slot::new(),
            me: Weak::clone(me),
        }))
    }

    /// Sets it; answers what it was set to.
    ///
    /// # Errors
    /// EINVAL for malformed times.
    pub fn set(&self, wanted: Itimerspec, absolute: bool) -> Result<Itimerspec, Errno> {
        let new = Setting::of(self.clock, wanted, absolute)?;
        let mut setting = self.setting.lock();
        let before = setting.shown();
        *setting = new;
        drop(setting);
        self.slot
            .set(new.next(), Weak::clone(&self.me) as Weak<dyn Expire>);
        // Who waits for the old time is to wait for the new one.
        self.queue.wake_all();
        Ok(before)
    }

    /// What is left of it.
    #[must_use]
    pub fn left(&self) -> Itimerspec {
        self.setting.lock().shown()
    }

    /// Its clock and when it goes off.
    #[must_use]
    pub fn state(&self) -> (i32, TimerState) {
        (self.clock, self.setting.lock().state())
    }

    /// One that goes off when a former one would have.
    ///
    /// # Errors
    /// As [`TimerFd::new`].
    pub fn restored(clock: i32, state: TimerState) -> Result<Arc<Self>, Errno> {
        let timer = Self::new(clock)?;
        *timer.setting.lock() = Setting::restored(state);
        let next = timer.setting.lock().next();
        timer
            .slot
            .set(next, Weak::clone(&timer.me) as Weak<dyn Expire>);
        Ok(timer)
    }

    fn is_due(&self) -> bool {
        let setting = self.setting.lock();
        setting.next_ns > 0 && clock::monotonic_ns() >= setting.next_ns
    }
}

impl Expire for TimerFd {
    fn expire(&self) {
        // The next time is asked for when this one has been read: until then it is readable anyway.
        self.queue.wake_all();
    }
}

/// Clocks that timers can have.
fn check_clock(clock: i32) -> Result<(), Errno> {
    match clock {
        libc::CLOCK_REALTIME | libc::CLOCK_MONOTONIC | libc::CLOCK_BOOTTIME => Ok(()),
        _ => Err(Errno::EINVAL),
    }
}

impl File for TimerFd {
    fn stat(&self) -> Result<Stat, Errno> {
        Ok(Stat {
            dev: 0xe,
            ino: 3,
            nlink: 1,
            mode: 0o600,
            blksize: 4096,
            ..Stat::default()
        })
    }

    fn read(&self, memory: &AddressSpace, to: &[Iovec], _offset: u64) -> Result<u64, Errno> {
        let room = to.iter().fold(0u64, |sum, r| sum.saturating_add(r.len));
        if room < 8 {
            return Err(Errno::EINVAL);
        }
        let mut setting = self.setting.lock();
        let mut after = *setting;
        let count = after.count();
        if count == 0 {
            return Err(Errno::EAGAIN);
        }
        memory.scatter(to, &count.to_ne_bytes())?;
        *setting = after;
        drop(setting);
        self.slot
            .set(after.next(), Weak::clone(&self.me) as Weak<dyn Expire>);
        Ok(8)
    }

    fn readiness(&self) -> u32 {
        if self.is_due() { EPOLLIN } else { 0 }
    }

    fn queue(&self) -> Option<&Arc<WaitQueue>> {
        Some(&self.queue)
    }

    fn as_any(&self) -> &dyn std::any::Any {
        self
    }
}

/// Shortest time between two signals of one timer, nanoseconds: no guest keeps the timer thread busy.
const LEAST_INTERVAL: u64 = 100_000;
/// Most timers of timer_create(2).
const MAX_TIMERS: usize = 1024;

/// A timer that sends a signal (setitimer(2), timer_create(2)).
pub struct Alarm {
    clock: i32,
    setting: Mutex<Setting>,
    /// The signal; `None` for SIGEV_NONE.
    info: Option<SigInfo>,
    /// To a thread, or to the process.
    thread: Option<Weak<ThreadShared>>,
    kernel: Weak<Kernel>,
    /// Of the last signal that was taken: the one that waits has its own.
    overrun: AtomicU64,
    slot: Slot,
    me: Weak<Alarm>,
}

impl Alarm {
    /// A disarmed timer.
    ///
    /// # Errors
    /// EINVAL for a clock that timers cannot have.
    pub fn new(
        kernel: &Arc<Kernel>,
        clock: i32,
        info: Option<SigInfo>,
        thread: Option<Weak<ThreadShared>>,
    ) -> Result<Arc<Self>, Errno> {
        check_clock(clock)?;
        Ok(Arc::new_cyclic(|me| Self {
            clock,
            setting: Mutex::default(),
            info,
            thread,
            kernel: Arc::downgrade(kernel),
            overrun: AtomicU64::new(0),
            slot: Slot::new(),
            me: Weak::clone(me),
        }))
    }

    /// Sets it; answers what it was set to.
    ///
    /// # Errors
    /// EINVAL for malformed times.
    pub fn set(&self, wanted: Itimerspec, absolute: bool) -> Result<Itimerspec, Errno> {
        let new = Setting::of(self.clock, wanted, absolute)?;
        let mut setting = self.setting.lock();
        let before = setting.shown();
        *setting = new;
        drop(setting);
        self.overrun.store(0, Ordering::Relaxed);
        self.slot
            .set(new.next(), Weak::clone(&self.me) as Weak<dyn Expire>);
        Ok(before)
    }

    /// What is left of it.
    #[must_use]
    pub fn left(&self) -> Itimerspec {
        self.setting.lock().shown()
    }

    /// ITIMER_REAL of a process, made when it is first asked for.
    ///
    /// # Errors
    /// As [`Alarm::new`].
    pub fn real(kernel: &Arc<Kernel>) -> Result<Arc<Self>, Errno> {
        let mut alarms = kernel.alarms.lock();
        if let Some(alarm) = &alarms.real {
            return Ok(Arc::clone(alarm));
        }
        let info = SigInfo {
            signo: SIGALRM,
            code: SI_KERNEL,
            ..SigInfo::default()
        };
        let alarm = Self::new(kernel, libc::CLOCK_MONOTONIC, Some(info), None)?;
        alarms.real = Some(Arc::clone(&alarm));
        Ok(alarm)
    }

    /// When it goes off.
    #[must_use]
    pub fn state(&self) -> TimerState {
        self.setting.lock().state()
    }

    /// Sets it as a former one was. One whose time has come meanwhile goes off here, so that its signal is there before any thread goes on, as where
    /// a process stood still.
    pub fn restore(&self, state: TimerState) {
        let setting = Setting::restored(state);
        *self.setting.lock() = setting;
        match setting.next() {
            Some(at) if at <= clock::monotonic_ns() => self.expire(),
            next => self
                .slot
                .set(next, Weak::clone(&self.me) as Weak<dyn Expire>),
        }
    }

    /// It under its number, as data.
    fn made_state(&self, id: i32) -> AlarmState {
        let tid = |thread: &Weak<ThreadShared>| thread.upgrade().map_or(0, |thread| thread.tid);
        AlarmState {
            id,
            clock: self.clock,
            info: self.info,
            tid: self.thread.as_ref().map(tid),
            timer: self.state(),
            overrun: self.overrun.load(Ordering::Relaxed),
        }
    }

    /// Makes a timer of timer_create(2) as a former one was, its threads being there.
    ///
    /// # Errors
    /// As [`Alarm::new`].
    pub fn make_again(kernel: &Arc<Kernel>, state: &AlarmState) -> Result<(), Errno> {
        // Of one whose thread has ended nobody gets the signal, as before.
        let thread = state.tid.map(|tid| {
            let thread = kernel.thread(tid);
            thread.map_or_else(Weak::new, |thread| Arc::downgrade(&thread))
        });
        let alarm = Self::new(kernel, state.clock, state.info, thread)?;
        alarm.overrun.store(state.overrun, Ordering::Relaxed);
        alarm.restore(state.timer);
        let mut alarms = kernel.alarms.lock();
        if alarms.made.len() >= MAX_TIMERS {
            return Err(Errno::EAGAIN);
        }
        alarms.add(state.id, alarm);
        Ok(())
    }

    /// How often it had gone off more when its last signal was taken (timer_getoverrun(2)).
    #[must_use]
    pub fn overrun(&self) -> u64 {
        self.overrun.load(Ordering::Relaxed).min(i32::MAX as u64)
    }
}

impl Expire for Alarm {
    fn expire(&self) {
        let Some(kernel) = self.kernel.upgrade() else {
            return;
        };
        let mut setting = self.setting.lock();
        let count = setting.count();
        let next = setting.next();
        drop(setting);
        let soonest = clock::monotonic_ns().saturating_add(LEAST_INTERVAL);
        let next = next.map(|at| at.max(soonest));
        self.slot
            .set(next, Weak::clone(&self.me) as Weak<dyn Expire>);
        if count == 0 {
            return;
        }
        let Some(mut info) = self.info else { return };
        let thread = match &self.thread {
            None => None,
            Some(thread) => match thread.upgrade() {
                Some(thread) => Some(thread),
                None => return,
            },
        };
        if info.code == SI_TIMER
            && let Some(first) = info.words.first_mut()
        {
            let timer = *first as i32;
            if kernel.add_overruns(thread.as_ref(), info.signo, timer, count) {
                return;
            }
            let missed = count.saturating_sub(1).min(i32::MAX as u64);
            // struct: timer id, overrun, value.
            *first = (*first & 0xffff_ffff) | (missed << 32);
        }
        // A queue that is full loses the signal, as Linux does.
        let _ = kernel.send_signal(thread.as_ref(), info);
    }
}

/// The timers of a process that send signals.
#[derive(Default)]
pub struct Alarms {
    /// ITIMER_REAL.
    pub real: Option<Arc<Alarm>>,
    made: BTreeMap<i32, Arc<Alarm>>,
}

impl Alarms {
    /// Those of timer_create(2), as data.
    #[must_use]
    pub fn made_states(&self) -> Vec<AlarmState> {
        let state = |(id, alarm): (&i32, &Arc<Alarm>)| alarm.made_state(*id);
        self.made.iter().map(state).collect()
    }

    /// The lowest free number for a timer.
    ///
    /// # Errors
    /// EAGAIN when there are too many.
    pub fn free_id(&self) -> Result<i32, Errno> {
        if self.made.len() >= MAX_TIMERS {
            return Err(Errno::EAGAIN);
        }
        let free = |id: &i32| !self.made.contains_key(id);
        (0..i32::MAX).find(free).ok_or(Errno::EAGAIN)
    }

    /// Keeps a timer under its number.
    pub fn add(&mut self, id: i32, alarm: Arc<Alarm>) {
        self.made.insert(id, alarm);
    }

    /// The timer of that number.
    ///
    /// # Errors
    /// EINVAL.
    pub fn get(&self, id: i32) -> Result<Arc<Alarm>, Errno> {
        self.made.get(&id).cloned().ok_or(Errno::EINVAL)
    }

    /// A timer's signal has been taken: its overrun is what the timer tells from now on. It counts all until this moment,
    /// also what the timer thread, which may be late, has not seen.
    pub fn note_taken(&self, info: &mut SigInfo) {
        if let Some(word) = info.words.first_mut()
            && let Some(alarm) = self.made.get(&(*word as i32))
        {
            let mut setting = alarm.setting.lock();
            let unseen = match setting.interval_ns {
                0 => 0,
                _ => setting.count(),
            };
            drop(setting);
            let missed = (*word >> 32).saturating_add(unseen).min(i32::MAX as u64);
            *word = (*word & 0xffff_ffff) | (missed << 32);
            alarm.overrun.store(missed, Ordering::Relaxed);
        }
    }

    /// Takes a timer away.
    ///
    /// # Errors
    /// EINVAL.
    pub fn remove(&mut self, id: i32) -> Result<(), Errno> {
        self.made.remove(&id).map(|_| ()).ok_or(Errno::EINVAL)
    }
}
