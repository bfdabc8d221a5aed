//! Answers some queries again by comparing all, while there is nobody to answer.

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::service::Service;

/// How often it is looked whether somebody is in a hurry.
const PERIOD: Duration = Duration::from_millis(20);
/// How often it is looked whether there is something to do.
const IDLE_PERIOD: Duration = Duration::from_millis(200);
/// How long nobody must have been answered.
const REST: Duration = Duration::from_millis(100);
/// As low as it gets.
const NICE: i32 = 19;

/// Lets all other threads go first.
pub(crate) fn step_back() {
    // Of this thread alone: Linux has a priority for each.
    if let Err(error) = rustix::process::setpriority_process(None, NICE) {
        tracing::debug!(%error, "a thread in the background has the priority of all");
    }
}

/// Audits what graphs have found until it is told to stop.
pub(crate) fn run(service: &Service, stop: &AtomicBool) {
    step_back();
    let rest = Rest { service, stop, since: Cell::new(Instant::now()), ended: Cell::new(0) };
    let go_on = || rest.wait();
    while !stop.load(Ordering::Relaxed) {
        match service.store.audit_recall(&go_on) {
            Ok(true) => {}
            Ok(false) => std::thread::sleep(IDLE_PERIOD),
            Err(error) => {
                let remedy = error.remedy().unwrap_or_default();
                tracing::warn!(%error, remedy, "a query is not audited");
            }
        }
    }
}

/// When nobody is answered.
struct Rest<'a> {
    service: &'a Service,
    stop: &'a AtomicBool,
    since: Cell<Instant>,
    /// Calls that had ended when it was looked last.
    ended: Cell<u64>,
}

impl Rest<'_> {
    /// Waits until nobody is answered, and has not been for a while; `false` if it is time to end.
    fn wait(&self) -> bool {
        while !self.stop.load(Ordering::Relaxed) {
            let gate = &self.service.gate;
            let traffic = gate.traffic();
            let ended = traffic.answered + traffic.refused;
            if !gate.is_idle() || self.ended.replace(ended) != ended {
                self.since.set(Instant::now());
            }
            if self.since.get().elapsed() >= REST {
                return true;
            }
            std::thread::sleep(PERIOD);
        }
        false
    }
}
