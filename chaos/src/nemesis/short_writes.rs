//! Writes that the kernel cuts short: the length that a process asks for is changed on its way into the call, so that
//! what the call returns is true, and the rest is really not written.
//!
//! The length of pwrite(2) is an argument in a register, which strace can't change; this does, with ptrace(2). A
//! tracer has to wait for every thread of what it traces, so it is a process of its own: [`ShortWrites`] starts this
//! program again, which calls [`cut`].

use std::io::Read as _;
use std::process::{Child, Command, Stdio};

use anyhow::Context as _;

use crate::rig::Missing;

/// The hidden command of this program that [`ShortWrites`] starts, with a process id.
pub const COMMAND: &str = "cut-writes";

/// Every third positioned write of a process takes half of its bytes, rounded down. Dropped, they are whole again.
#[derive(Debug)]
pub struct ShortWrites {
    tracer: Child,
}

impl ShortWrites {
    /// Attaches to a process; [`Self::is_on`] says when it is done.
    ///
    /// # Errors
    /// What starting a program says.
    pub fn attach(pid: u32) -> anyhow::Result<Self> {
        let program = std::env::current_exe().context("the path of this program")?;
        let tracer = Command::new(program)
            .args([COMMAND, &pid.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("start a tracer")?;
        Ok(Self { tracer })
    }

    /// Whether every thread of the process is under it by now.
    pub fn is_on(&self, pid: u32) -> bool {
        super::injection::traces(self.tracer.id(), pid)
    }

    /// Whether it has ended by itself, as it does at once where it may not attach.
    pub fn gave_up(&mut self) -> bool {
        self.tracer.try_wait().is_ok_and(|status| status.is_some())
    }

    /// Lets go of the process; how many writes were cut.
    ///
    /// # Errors
    /// When the tracer ended otherwise than it was asked to; [`Missing`] where it can't trace.
    pub fn end(mut self) -> anyhow::Result<u64> {
        drop(self.tracer.stdin.take());
        let mut said = String::new();
        if let Some(out) = self.tracer.stdout.as_mut() {
            out.read_to_string(&mut said).context("what the tracer says")?;
        }
        said.trim().parse().map_err(|_not_a_number| Missing::because("writes can't be cut here"))
    }
}

impl Drop for ShortWrites {
    fn drop(&mut self) {
        // At the end of its input it lets go at a moment at which no call is changed. A process that is gone already
        // has ended it, too.
        drop(self.tracer.stdin.take());
        drop(self.tracer.wait());
    }
}

/// Not here.
///
/// # Errors
/// [`Missing`].
#[cfg(not(all(target_arch = "x86_64", target_env = "gnu")))]
pub fn cut(_pid: u32) -> anyhow::Result<u64> {
    Err(Missing::because("the registers of this processor are not known"))
}

#[cfg(all(target_arch = "x86_64", target_env = "gnu"))]
pub use x86_64::cut;

#[cfg(all(target_arch = "x86_64", target_env = "gnu"))]
mod x86_64 {
    use std::collections::{BTreeMap, BTreeSet};
    use std::io::Read as _;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use anyhow::Context as _;

    use super::ptrace::{self, Errno, Thread};
    use crate::rig::Missing;

    const ONE_OF: u64 = 3;
    /// What a call has as its result while it begins: "no such call". Linux, arch/x86/entry/entry_64.S.
    const BEGINS: u64 = (-libc::ENOSYS as i64).cast_unsigned();

    /// Cuts the writes of a process until standard input ends, or the process; how many.
    ///
    /// # Errors
    /// [`Missing`] where this process may not trace that one.
    #[expect(
        clippy::disallowed_methods,
        reason = "a process without a runtime, whose first thread waits for another"
    )]
    pub fn cut(pid: u32) -> anyhow::Result<u64> {
        let ended = Arc::new(AtomicBool::new(false));
        let end = ended.clone();
        std::thread::spawn(move || {
            let mut nothing = [0];
            while std::io::stdin().read(&mut nothing).is_ok_and(|read| read > 0) {}
            end.store(true, Ordering::Relaxed);
        });
        seize(pid)?;
        let mut cutter = Cutter::default();
        // A server calls something all the time, so this goes round often. What is traced when a tracer ends goes on.
        while !(ended.load(Ordering::Relaxed) && cutter.changed.is_empty()) {
            match ptrace::wait() {
                Ok((thread, status)) => cutter.on(thread, status)?,
                Err(Errno(libc::ECHILD)) => break,
                Err(Errno(libc::EINTR)) => {}
                Err(errno) => return Err(errno).context("wait for what is traced"),
            }
        }
        Ok(cutter.cut)
    }

    /// Every thread there is; those that come later are traced from their beginning.
    fn seize(pid: u32) -> anyhow::Result<()> {
        let folder = format!("/proc/{pid}/task");
        let mut seen = BTreeSet::new();
        loop {
            let before = seen.len();
            for entry in std::fs::read_dir(&folder).with_context(|| folder.clone())? {
                let name = entry?.file_name();
                let Some(thread) = name.to_str().and_then(|name| name.parse().ok()) else { continue };
                if !seen.insert(thread) {
                    continue;
                }
                match ptrace::seize(thread) {
                    Ok(()) => ptrace::interrupt(thread).context("stop a thread")?,
                    // It has ended, or a thread that is traced has started it, which makes it traced.
                    Err(Errno(libc::ESRCH | libc::EPERM)) if before > 0 => {}
                    Err(errno) => {
                        return Err(Missing::because(format!("a process can't be traced: {errno}")));
                    }
                }
            }
            if seen.len() == before {
                return Ok(());
            }
        }
    }

    #[derive(Default)]
    struct Cutter {
        /// The threads that are in a call with a changed length, and the length that they asked for.
        changed: BTreeMap<Thread, u64>,
        seen: u64,
        cut: u64,
    }

    impl Cutter {
        fn on(&mut self, thread: Thread, status: libc::c_int) -> anyhow::Result<()> {
            if !libc::WIFSTOPPED(status) {
                self.changed.remove(&thread);
                return Ok(());
            }
            let signal = match (libc::WSTOPSIG(status), status >> 16) {
                (ptrace::CALL, _) => {
                    gone_is_fine(self.at_call(thread))?;
                    0
                }
                // Meant for the process.
                (signal, 0) => signal,
                // A new thread, or one that was stopped to be traced.
                _ => 0,
            };
            gone_is_fine(ptrace::go_on(thread, signal))
        }

        /// A thread is about to enter a call of the kernel, or has just come back.
        fn at_call(&mut self, thread: Thread) -> Result<(), Errno> {
            let mut registers = ptrace::registers(thread)?;
            if let Some(asked) = self.changed.remove(&thread) {
                // A call leaves this register alone, and the program counts on that.
                registers.rdx = asked;
                return ptrace::set_registers(thread, &registers);
            }
            let writes = registers.orig_rax == libc::SYS_pwrite64.cast_unsigned();
            if registers.rax != BEGINS || !writes || registers.rdx < 2 {
                return Ok(());
            }
            self.seen += 1;
            if !self.seen.is_multiple_of(ONE_OF) {
                return Ok(());
            }
            self.cut += 1;
            self.changed.insert(thread, registers.rdx);
            registers.rdx /= 2;
            ptrace::set_registers(thread, &registers)
        }
    }

    /// A thread that is killed while it is looked at is none of ours any more.
    fn gone_is_fine(result: Result<(), Errno>) -> anyhow::Result<()> {
        match result {
            Ok(()) | Err(Errno(libc::ESRCH)) => Ok(()),
            Err(errno) => Err(errno).context("ptrace"),
        }
    }
}

/// ptrace(2), as far as it is needed here.
#[cfg(all(target_arch = "x86_64", target_env = "gnu"))]
mod ptrace {
    use std::fmt;
    use std::ptr::{from_mut, from_ref, null_mut};

    use libc::{c_int, c_uint, c_void, pid_t, user_regs_struct};

    pub(super) type Thread = pid_t;

    /// The signal with which a thread stops before and after a call: PTRACE_O_TRACESYSGOOD sets bit 7.
    pub(super) const CALL: c_int = libc::SIGTRAP | 0x80;

    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(super) struct Errno(pub(super) c_int);

    impl fmt::Display for Errno {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            std::io::Error::from_raw_os_error(self.0).fmt(f)
        }
    }

    impl std::error::Error for Errno {}

    fn ask(request: c_uint, thread: Thread, address: usize, data: *mut c_void) -> Result<(), Errno> {
        // SAFETY: `data` is no pointer for the requests made here but GETREGS and SETREGS, for which it is one to a
        // `user_regs_struct` that lives until the call returns; the kernel changes no other memory of this process.
        let result = unsafe { libc::ptrace(request, thread, address, data) };
        if result < 0 { Err(last()) } else { Ok(()) }
    }

    fn last() -> Errno {
        Errno(std::io::Error::last_os_error().raw_os_error().unwrap_or_default())
    }

    pub(super) fn seize(thread: Thread) -> Result<(), Errno> {
        let options = libc::PTRACE_O_TRACESYSGOOD | libc::PTRACE_O_TRACECLONE;
        let options = usize::try_from(options).unwrap_or_default();
        ask(libc::PTRACE_SEIZE, thread, 0, std::ptr::without_provenance_mut(options))
    }

    pub(super) fn interrupt(thread: Thread) -> Result<(), Errno> {
        ask(libc::PTRACE_INTERRUPT, thread, 0, null_mut())
    }

    /// To its next call of the kernel, or back from this one; a signal other than 0 reaches it.
    pub(super) fn go_on(thread: Thread, signal: c_int) -> Result<(), Errno> {
        let signal = usize::try_from(signal).unwrap_or_default();
        ask(libc::PTRACE_SYSCALL, thread, 0, std::ptr::without_provenance_mut(signal))
    }

    pub(super) fn registers(thread: Thread) -> Result<user_regs_struct, Errno> {
        // SAFETY: it is made of integers only, for which zeros are valid.
        let mut registers: user_regs_struct = unsafe { std::mem::zeroed() };
        ask(libc::PTRACE_GETREGS, thread, 0, from_mut(&mut registers).cast())?;
        Ok(registers)
    }

    pub(super) fn set_registers(thread: Thread, registers: &user_regs_struct) -> Result<(), Errno> {
        ask(libc::PTRACE_SETREGS, thread, 0, from_ref(registers).cast_mut().cast())
    }

    /// The next thread of those that are traced to stop or end, and how.
    pub(super) fn wait() -> Result<(Thread, c_int), Errno> {
        let mut status = 0;
        // SAFETY: `status` lives until the call returns.
        let thread = unsafe { libc::waitpid(-1, &mut status, libc::__WALL) };
        if thread < 0 { Err(last()) } else { Ok((thread, status)) }
    }
}
