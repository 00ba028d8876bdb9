//! What a panic said: by the time a step of the simulator gives it back, the runtime has put words of its own in its place.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook};
use std::sync::Once;

static HOOK: Once = Once::new();

thread_local! {
    /// The first panic of the run in this thread; `None` while nothing runs here.
    static SAID: RefCell<Option<Option<String>>> = const { RefCell::new(None) };
}

/// Runs `work`.
///
/// # Errors
/// What its first panic said, and where, if it ended with one.
pub(super) fn caught<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    HOOK.call_once(|| {
        let before = take_hook();
        set_hook(Box::new(move |panic| {
            SAID.with_borrow_mut(|said| {
                if let Some(first @ None) = said {
                    *first = Some(panic.to_string());
                }
            });
            before(panic);
        }));
    });
    SAID.set(Some(None));
    let ended = catch_unwind(AssertUnwindSafe(work));
    let said = SAID.take().flatten();
    ended.map_err(|_| said.unwrap_or_default())
}
