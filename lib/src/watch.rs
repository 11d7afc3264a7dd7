//! Being woken when something may have changed: hints from the file system plus a slow scan.
//!
//! # Invariants
//! - A wake-up is a hint; the scan that follows is the truth. A lost hint costs one interval, no more.
//! - `.lock/` is watched too: the move of a mark is what makes records readable.
//! - Being read does not wake: only changes do.
//!
//! Only user of notify.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{self, Receiver, RecvTimeoutError},
    },
    time::{Duration, Instant},
};

use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher, event::ModifyKind};

use crate::{Error, Kind, Result, logs::Logs};

/// How often a shutdown is looked for while nothing happens.
const GLANCE: Duration = Duration::from_millis(200);

/// A watch on a logs folder.
#[derive(Debug)]
pub struct Watch {
    hints: Receiver<()>,
    /// Kept because dropping it ends the hints.
    _watcher: RecommendedWatcher,
}

impl Watch {
    /// Watches the folder and its `.lock/`.
    pub fn start(logs: &Logs) -> Result<Watch> {
        // Room for one hint: more say nothing new.
        let (give, hints) = mpsc::sync_channel(1);
        let failed = |it: notify::Error| {
            Error::new(Kind::Temporary, logs.dir().display(), "cannot watch the logs folder")
                .because(it)
                .cure("raise fs.inotify.max_user_instances, or run without --watch from a timer")
        };
        let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            let is_change = match event {
                Ok(it) => {
                    it.need_rescan()
                        || matches!(
                            it.kind,
                            EventKind::Create(_)
                                | EventKind::Modify(
                                    ModifyKind::Data(_) | ModifyKind::Name(_) | ModifyKind::Any
                                )
                        )
                }
                Err(_) => true,
            };
            if is_change {
                // A full channel holds a hint already, and a closed one has nobody to wake.
                let _ = give.try_send(());
            }
        })
        .map_err(failed)?;
        let locks = logs.place(".lock/hint")?;
        for dir in [logs.dir(), locks.parent().unwrap_or(logs.dir())] {
            watcher.watch(dir, RecursiveMode::NonRecursive).map_err(failed)?;
        }
        Ok(Watch { hints, _watcher: watcher })
    }

    /// Waits until something may have changed, `at_most` has passed, or `stop` is set.
    pub fn wait(&self, at_most: Duration, stop: &Arc<AtomicBool>) {
        let until = Instant::now() + at_most;
        while !stop.load(Ordering::SeqCst) {
            let left = until.saturating_duration_since(Instant::now());
            match self.hints.recv_timeout(left.min(GLANCE)) {
                Err(RecvTimeoutError::Timeout) if left > GLANCE => {}
                Ok(()) | Err(_) => return,
            }
        }
    }
}
