//! What a run sees of the machine's clocks: simulated time, whatever the date and however slow the machine.
//!
//! Our code reads `host::Clock`, but libraries below it ask the machine: `h2` forgets a stream that it reset after a second
//! of `std::time::Instant`, and `hyper` writes a `date` into answers. A second that passed at the wrong step of a slow run
//! was a segment more or less, and from there on another run. So this program has a `clock_gettime` of its own, which the
//! linker takes before the C library's; in a thread that steps a simulation it tells the time of the simulation.

use std::cell::Cell;
use std::marker::PhantomData;
use std::time::Duration;

use libc::{c_int, clockid_t, timespec};

use super::servers::EPOCH_MS;

thread_local! {
    /// Simulated time since the run of this thread began; `None` outside of runs. Without a destructor, so that it can be
    /// read as long as the thread lives.
    static SIMULATED: Cell<Option<Duration>> = const { Cell::new(None) };
}

/// While it lives, the machine's clocks stand still in this thread, and move only when they are set.
pub(super) struct MachineClock {
    /// It is of one thread.
    thread: PhantomData<*const ()>,
}

impl MachineClock {
    /// Stops them where every run begins.
    pub(super) fn stopped() -> Self {
        SIMULATED.set(Some(Duration::ZERO));
        Self { thread: PhantomData }
    }

    /// Moves them to `elapsed` of simulated time.
    pub(super) fn set(&self, elapsed: Duration) {
        let Self { thread: PhantomData } = self;
        SIMULATED.set(Some(elapsed));
    }
}

impl Drop for MachineClock {
    fn drop(&mut self) {
        SIMULATED.set(None);
    }
}

/// What `clock` shows; `None` for clocks that count something else than time.
///
/// Monotonic time begins at zero and so stays behind the machine's: a wait in the kernel until then ends at once.
fn shown(clock: clockid_t, elapsed: Duration) -> Option<Duration> {
    match clock {
        libc::CLOCK_REALTIME | libc::CLOCK_REALTIME_COARSE => {
            Some(elapsed.saturating_add(Duration::from_millis(EPOCH_MS)))
        }
        libc::CLOCK_MONOTONIC
        | libc::CLOCK_MONOTONIC_COARSE
        | libc::CLOCK_MONOTONIC_RAW
        | libc::CLOCK_BOOTTIME => Some(elapsed),
        _ => None,
    }
}

/// See `clock_gettime(2)`.
///
/// # Safety
/// `out` is valid for a write, as the C library asks of every caller.
#[unsafe(no_mangle)]
unsafe extern "C" fn clock_gettime(clock: clockid_t, out: *mut timespec) -> c_int {
    let Some(time) = SIMULATED.get().and_then(|elapsed| shown(clock, elapsed)) else {
        // SAFETY: the arguments of the system call, as they came.
        let answer = unsafe { libc::syscall(libc::SYS_clock_gettime, clock, out) };
        return c_int::try_from(answer).unwrap_or(-1);
    };
    let seconds = time.as_secs().try_into().unwrap_or(0);
    // SAFETY: the caller gives room for one.
    unsafe { out.write(timespec { tv_sec: seconds, tv_nsec: time.subsec_nanos().into() }) };
    0
}

#[cfg(test)]
mod tests {
    use std::time::{Instant, SystemTime, UNIX_EPOCH};

    use super::*;

    #[expect(clippy::disallowed_methods, reason = "the clocks are what is tested")]
    fn both() -> (Instant, SystemTime) {
        (Instant::now(), SystemTime::now())
    }

    #[test]
    fn the_machines_clocks_show_simulated_time_in_a_run_and_only_there() {
        let (_, today) = both();
        let clock = MachineClock::stopped();
        let (begin, epoch) = both();
        assert_eq!(epoch, UNIX_EPOCH + Duration::from_millis(EPOCH_MS));
        let elsewhere = std::thread::scope(|threads| threads.spawn(|| both().1).join()).unwrap();
        assert!(elsewhere >= today, "another thread sees the machine's");
        assert_eq!(both(), (begin, epoch), "nothing moves by itself");
        clock.set(Duration::from_millis(1_500));
        let (now, date) = both();
        assert_eq!(now - begin, Duration::from_millis(1_500));
        assert_eq!(date.duration_since(epoch).unwrap(), Duration::from_millis(1_500));
        drop(clock);
        let (real, date) = both();
        assert!(date >= today && real != now, "the machine's own again");
    }
}
