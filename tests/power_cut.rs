//! Power cuts: bytes that were never synced are lost for real, acknowledged records are not.
//!
//! Needs root, loop devices and mkfs.ext4; says so and does nothing without them.
//! `OPDBUS_TEST_CUTS` says how many cuts (6 unless set), `OPDBUS_TEST_SEED` repeats operations.

use std::path::Path;

use support::crash::aging::AgingStore;
use support::crash::campaign::{Campaign, skip};
use support::crash::check::{Finding, Session};
use support::crash::disk::Disk;
use support::crash::import::{Import, Moment};
use support::crash::no_sync::without_sync;
use support::random::Random;

const CUTS_VARIABLE: &str = "OPDBUS_TEST_CUTS";
const CUTS_DEFAULT: u64 = 6;
/// A disk is replaced by a new one after so many cuts.
const CUTS_OF_DISK: u64 = 25;
const DISK_LEN_BYTES: u64 = 1 << 30;

fn start(random: &mut Random, store: &AgingStore) -> Import {
    let program = Path::new(env!("CARGO_BIN_EXE_op-dbus"));
    Import::start(program, store.path(), random, store.session(), store.writer(0))
}

/// Cuts the power below a running import, and says what it had done.
///
/// Only what was acknowledged before the cut counts. The process outlives the cut by a moment, in
/// which ext4 may report success for a sync that was under way (seen on Linux 6.18 with a loop of
/// nothing but write, fdatasync and acknowledge: 1 of 400 cuts); a power failure would have
/// ended the process too.
fn cut(disk: &mut Disk, mut import: Import, moment: Moment) -> Result<Session, Finding> {
    let at_work = import.wait_until(moment);
    let acknowledged_count = import.acknowledged_count();
    disk.cut();
    let ended = import.end();
    disk.replug();
    if at_work {
        return Ok(Session { acknowledged_count, ..ended.session });
    }
    Err(Finding::Writer(format!("ended with {} before the cut: {}", ended.status, ended.stderr)))
}

#[test]
fn a_power_cut_loses_nothing_that_was_acknowledged() {
    let mut campaign = Campaign::start("power cut", CUTS_VARIABLE, CUTS_DEFAULT, 100);
    let mut random = campaign.random();
    while campaign.goes_on() {
        let mut disk = match Disk::create(DISK_LEN_BYTES) {
            Ok(disk) => disk,
            Err(reason) => return skip("power cuts", &reason),
        };
        let mut store = AgingStore::new(disk.path().join("store"), 1);
        for _ in 0..CUTS_OF_DISK {
            let moment = Moment::random(&mut random);
            let import = start(&mut random, &store);
            let settled = cut(&mut disk, import, moment).map_err(|finding| vec![finding]).and_then(
                |session| {
                    store.settle(std::slice::from_ref(&session))?;
                    Ok(session.acknowledged_count)
                },
            );
            campaign.judge(&moment, settled, || disk.keep());
            if !campaign.goes_on() {
                break;
            }
        }
    }
    campaign.finish("");
}

/// The planted bug: with syncs that do nothing, the same harness must report losses.
#[test]
fn without_syncs_a_power_cut_loses_what_was_acknowledged_and_is_caught() {
    const CUTS_MAX: usize = 5;
    let mut random = Random::new(1);
    let mut seen = Vec::new();
    for _ in 0..CUTS_MAX {
        let mut disk = match Disk::create(DISK_LEN_BYTES) {
            Ok(disk) => disk,
            Err(reason) => return skip("the planted bug", &reason),
        };
        let mut store = AgingStore::new(disk.path().join("store"), 1);
        let some = Moment::AfterAcknowledgements { count: 300, more: Default::default() };
        let mut whole = start(&mut random, &store);
        whole.wait_until(some);
        let session = whole.finish().expect("with syncs an import works");
        store.settle(&[session]).expect("with syncs nothing is lost");

        let import = without_sync(|| start(&mut random, &store));
        let session = cut(&mut disk, import, some).expect("it is at work until the cut");
        assert!(session.acknowledged_count >= 300, "it acknowledges without syncing");
        if let Err(findings) = store.settle(&[session]) {
            if findings.iter().any(|finding| matches!(finding, Finding::Lost { .. })) {
                return;
            }
            seen.extend(findings);
        }
    }
    panic!("{CUTS_MAX} cuts without syncs lost nothing that was acknowledged: {seen:?}");
}
