use super::*;

fn limits(megabytes: u64) -> Limits {
    Limits { bytes: megabytes << 20, min_free: 0, sync_seconds: 1 }
}

/// A new file of flow `new`.
fn wanted(bytes: u64, deny_new: bool) -> Wanted<'static> {
    Wanted { flow: "new", bytes, opens: true, deny_new }
}

fn enter(spool: &Spool, record: &Record) {
    spool.enter(record.clone(), &File::open(spool.dir()).unwrap()).unwrap();
}

/// A whole recording of one flow.
fn put(spool: &Spool, flow: &str, bytes: usize) -> u64 {
    let id = spool.next_id();
    let mut record = Record::of_file_name(&format!("{id:012x}.{flow}.out.mp4")).unwrap();
    record.stage = Stage::Complete;
    record.bytes = bytes as u64;
    std::fs::write(spool.path(&record), vec![1; bytes]).unwrap();
    enter(spool, &record);
    spool.update(record).unwrap();
    spool.set_busy(id, false);
    id
}

#[test]
fn what_was_in_the_spool_is_there_again_and_numbers_go_on() {
    let state = tempfile::tempdir().unwrap();
    let spool = Spool::open(state.path(), limits(10)).unwrap();
    let (one, other) = (put(&spool, "a", 10), put(&spool, "b", 20));
    let before = spool.all();
    drop(spool);
    let spool = Spool::open(state.path(), limits(10)).unwrap();
    let of = |all: Vec<Held>| all.into_iter().map(|held| (held.record, held.bytes)).collect::<Vec<_>>();
    assert_eq!(of(spool.all()), of(before));
    assert_eq!((one, other, spool.next_id()), (1, 2, 3));
    assert_eq!(spool.bytes(), 30);
}

#[test]
fn a_file_whose_record_is_lost_is_still_somebodys() {
    let state = tempfile::tempdir().unwrap();
    let spool = Spool::open(state.path(), limits(10)).unwrap();
    let id = put(&spool, "a", 10);
    let record = spool.all()[0].record.clone();
    std::fs::write(record.path(spool.dir(), "json"), "nonsense").unwrap();
    drop(spool);
    let spool = Spool::open(state.path(), limits(10)).unwrap();
    let held = &spool.all()[0];
    assert!(held.broken && held.record.id == id && held.record.flow == "a", "{held:?}");
}

#[test]
fn one_spool_belongs_to_one_module() {
    let state = tempfile::tempdir().unwrap();
    let _spool = Spool::open(state.path(), limits(10)).unwrap();
    assert!(matches!(Spool::open(state.path(), limits(10)), Err(SpoolError::InUse(_))));
}

#[test]
fn nothing_is_recorded_into_a_folder_whose_disk_is_not_mounted() {
    let state = tempfile::tempdir().unwrap();
    let spool = Spool::open(state.path(), limits(10)).unwrap();
    let mut dropped = Vec::new();
    spool.admit(wanted(1, false), &mut dropped).unwrap();
    let away = state.path().join("away");
    std::fs::rename(spool.dir(), &away).unwrap();
    std::fs::create_dir(spool.dir()).unwrap();
    assert!(matches!(spool.admit(wanted(1, false), &mut dropped), Err(SpoolError::NotMounted { .. })));
    drop(spool);
    let error = Spool::open(state.path(), limits(10)).unwrap_err();
    assert!(error.to_string().contains("is its disk mounted?"), "{error}");
    // It is mounted again.
    std::fs::remove_dir_all(state.path().join("spool")).unwrap();
    std::fs::rename(away, state.path().join("spool")).unwrap();
    Spool::open(state.path(), limits(10)).unwrap();
}

#[test]
fn a_disk_that_was_unplugged_and_is_back_is_known_by_its_marker_and_another_one_is_not() {
    let state = tempfile::tempdir().unwrap();
    let spool = Spool::open(state.path(), limits(10)).unwrap();
    let marker = std::fs::read(spool.dir().join("spool.marker")).unwrap();
    // Another file system at the same place: other numbers, the same names.
    let mount = |marker: &[u8]| {
        std::fs::rename(spool.dir(), state.path().join(format!("away{}", marker.len()))).unwrap();
        std::fs::create_dir(spool.dir()).unwrap();
        std::fs::write(spool.dir().join("spool.marker"), marker).unwrap();
    };
    mount(&marker);
    for _ in 0..2 {
        spool.admit(wanted(1, false), &mut Vec::new()).unwrap();
    }
    assert!(matches!(Spool::open(state.path(), limits(10)), Err(SpoolError::InUse(_))));
    mount(b"0123\n");
    assert!(matches!(spool.admit(wanted(1, false), &mut Vec::new()), Err(SpoolError::NotMounted { .. })));
}

#[test]
fn a_full_spool_costs_the_oldest_of_the_flow_that_holds_most() {
    let state = tempfile::tempdir().unwrap();
    let spool = Spool::open(state.path(), limits(1)).unwrap();
    let quiet = put(&spool, "quiet", 100_000);
    let loud: Vec<_> = (0..3).map(|_| put(&spool, "loud", 300_000)).collect();
    let mut dropped = Vec::new();
    spool.admit(wanted(100_000, false), &mut dropped).unwrap();
    assert_eq!(dropped.iter().map(|dropped| dropped.record.id).collect::<Vec<_>>(), [loud[0]]);
    let left: Vec<_> = spool.all().iter().map(|held| held.record.id).collect();
    assert_eq!(left, [quiet, loud[1], loud[2]]);
    assert!(matches!(spool.admit(wanted(500_000, true), &mut dropped), Err(SpoolError::Full(_))));
    assert_eq!(dropped.len(), 1);
}

#[test]
fn what_is_being_written_or_stored_and_what_may_not_go_is_never_deleted_to_make_room() {
    let state = tempfile::tempdir().unwrap();
    let spool = Spool::open(state.path(), limits(1)).unwrap();
    let busy = put(&spool, "a", 500_000);
    assert!(spool.set_busy(busy, true));
    assert!(!spool.set_busy(busy, true));
    let kept = put(&spool, "b", 500_000);
    let mut record = spool.all()[1].record.clone();
    record.protected = true;
    spool.update(record).unwrap();
    let mut dropped = Vec::new();
    assert!(matches!(
        spool.admit(wanted(200_000, false), &mut dropped),
        Err(SpoolError::Full(Full::Spool { .. }))
    ));
    assert!(dropped.is_empty());
    assert_eq!(spool.all().iter().map(|held| held.record.id).collect::<Vec<_>>(), [busy, kept]);
}

#[test]
fn what_waits_comes_in_the_order_that_is_asked_for() {
    let state = tempfile::tempdir().unwrap();
    let spool = Spool::open(state.path(), limits(10)).unwrap();
    let place = ("a".to_owned(), "out".to_owned());
    let ids: Vec<_> = (0..3).map(|_| put(&spool, "a", 10)).collect();
    put(&spool, "b", 10);
    assert_eq!(spool.next_for(&place, false, |_| false).map(|record| record.id), Some(ids[0]));
    assert_eq!(spool.next_for(&place, true, |_| false).map(|record| record.id), Some(ids[2]));
    assert_eq!(spool.next_for(&place, false, |id| id == ids[0]).map(|record| record.id), Some(ids[1]));
    assert_eq!(spool.next_for(&place, true, |id| id == ids[2]).map(|record| record.id), Some(ids[1]));
    assert_eq!(spool.next_for(&place, true, |_| true), None);
    spool.set_busy(ids[0], true);
    assert_eq!(spool.next_for(&place, false, |_| false).map(|record| record.id), Some(ids[1]));
}

#[test]
fn a_file_that_can_not_be_repaired_is_put_aside_and_stays() {
    let state = tempfile::tempdir().unwrap();
    let spool = Spool::open(state.path(), limits(10)).unwrap();
    let id = put(&spool, "a", 10);
    spool.quarantine(id).unwrap();
    drop(spool);
    let spool = Spool::open(state.path(), limits(10)).unwrap();
    let held = spool.all().remove(0);
    assert_eq!((held.record.stage, held.record.id, held.bytes), (Stage::Quarantined, id, 10));
    assert!(spool.path(&held.record).is_file());
    assert_eq!(spool.next_for(&("a".into(), "out".into()), false, |_| false), None);
}

#[test]
fn a_record_that_can_not_be_read_costs_itself_and_nothing_else() {
    let state = tempfile::tempdir().unwrap();
    let spool = Spool::open(state.path(), limits(10)).unwrap();
    let id = put(&spool, "a", 10);
    // Reading a folder fails as reading a bad sector does.
    let bad = spool.dir().join("0000000000ff.a.out.json");
    std::fs::create_dir(&bad).unwrap();
    drop(spool);
    let spool = Spool::open(state.path(), limits(10)).unwrap();
    assert_eq!(spool.all().iter().map(|held| held.record.id).collect::<Vec<_>>(), [id]);
    assert!(bad.exists());
}

#[test]
fn a_disk_that_others_fill_costs_no_more_than_twice_what_comes() {
    let state = tempfile::tempdir().unwrap();
    let limits = Limits { bytes: 1 << 30, min_free: 1 << 20, sync_seconds: 1 };
    let spool = Spool::open(state.path(), limits).unwrap();
    for _ in 0..20 {
        put(&spool, "a", 10_000);
    }
    // What is deleted never shows.
    let fill = |free| spool.inner().disk = Some(Disk { free, free_inodes: None });
    fill(1 << 19);
    let open = spool.next_id();
    enter(&spool, &Record::of_file_name(&format!("{open:012x}.new.out.mp4")).unwrap());
    let mut dropped = Vec::new();
    for second in 1..=10 {
        spool.admit(wanted(2000, false), &mut dropped).unwrap();
        spool.grew(open, second * 2000, second * 2000);
    }
    assert_eq!(dropped.len(), 4, "{dropped:?}");
    // Without a byte nothing is written, and nothing more goes for it.
    fill(0);
    for _ in 0..10 {
        assert!(matches!(spool.admit(wanted(2000, false), &mut dropped), Err(SpoolError::Full(_))));
    }
    assert_eq!(dropped.len(), 5);
    // The same with a bound that is what the disk has.
    spool.set_limits(Limits { bytes: 0, min_free: 0, ..limits });
    fill(10_000);
    spool.admit(wanted(2000, false), &mut dropped).unwrap();
    assert_eq!(dropped.len(), 5);
}

#[test]
fn a_disk_without_inodes_costs_a_file_for_each_that_begins() {
    let state = tempfile::tempdir().unwrap();
    let spool = Spool::open(state.path(), limits(10)).unwrap();
    for _ in 0..5 {
        put(&spool, "a", 10);
    }
    spool.inner().disk = Some(Disk { free: 1 << 30, free_inodes: Some(0) });
    let mut dropped = Vec::new();
    for _ in 0..10 {
        spool.admit(Wanted { opens: false, ..wanted(10, false) }, &mut dropped).unwrap();
    }
    assert_eq!(dropped.len(), 0);
    spool.admit(wanted(10, false), &mut dropped).unwrap();
    assert_eq!(dropped.len(), 1);
}

#[test]
fn who_denies_what_is_new_gets_a_share_of_a_spool_that_others_have_filled() {
    let state = tempfile::tempdir().unwrap();
    let spool = Spool::open(state.path(), limits(1)).unwrap();
    for _ in 0..10 {
        put(&spool, "loud", 100_000);
    }
    let mut dropped = Vec::new();
    spool.admit(wanted(100_000, true), &mut dropped).unwrap();
    assert_eq!(dropped.len(), 1);
    // It holds its share now.
    for _ in 0..10 {
        put(&spool, "new", 100_000);
    }
    assert!(matches!(spool.admit(wanted(100_000, true), &mut dropped), Err(SpoolError::Full(_))));
    assert_eq!(dropped.len(), 1);
}

#[test]
fn what_has_to_go_is_in_nobody_elses_hands() {
    let state = tempfile::tempdir().unwrap();
    let spool = Spool::open(state.path(), limits(1)).unwrap();
    let ids = [put(&spool, "a", 10), put(&spool, "a", 10)];
    let taken = [(); 2].map(|()| spool.take_victim().unwrap().record.id);
    assert_eq!(taken, ids);
    assert!(!spool.set_busy(ids[0], true) && spool.take_victim().is_none());
}

#[test]
fn what_comes_is_recorded_while_what_lies_there_is_still_read() {
    let state = tempfile::tempdir().unwrap();
    let before = Spool::open(state.path(), limits(10)).unwrap();
    let old: Vec<_> = (0..300).map(|_| put(&before, "a", 10)).collect();
    drop(before);
    // A record that was not written whole.
    let torn = state.path().join("spool/000000000001.a.out.new");
    std::fs::write(&torn, "").unwrap();
    let (spool, lying) = Spool::begin(state.path(), limits(10)).unwrap();
    assert!(!spool.is_whole() && !torn.exists() && spool.all().is_empty());
    spool.admit(wanted(10, false), &mut Vec::new()).unwrap();
    let new = put(&spool, "a", 20);
    assert_eq!(new, old.last().unwrap() + 1);
    let mut seen = Vec::new();
    spool.take_in(lying, || seen.push(spool.all().len()));
    assert!(spool.is_whole());
    assert_eq!(seen, [2, 258, 301]);
    assert_eq!((spool.bytes(), spool.waiting().1), (3020, 301));
    assert_eq!(spool.next_for(&("a".into(), "out".into()), false, |_| false).unwrap().id, old[0]);
}

#[test]
fn blocks_that_are_allocated_ahead_take_room_until_their_file_is_whole() {
    let state = tempfile::tempdir().unwrap();
    let spool = Spool::open(state.path(), limits(1)).unwrap();
    let id = spool.next_id();
    let mut record = Record::of_file_name(&format!("{id:012x}.a.out.mp4")).unwrap();
    enter(&spool, &record);
    spool.grew(id, 10, 1_000_000);
    assert_eq!((spool.get(id).unwrap().bytes, spool.bytes()), (10, 1_000_000));
    assert!(spool.has_room(1000) && !spool.has_room(100_000));
    assert!(matches!(spool.admit(wanted(100_000, false), &mut Vec::new()), Err(SpoolError::Full(_))));
    (record.stage, record.bytes) = (Stage::Complete, 20);
    spool.update(record).unwrap();
    assert_eq!((spool.get(id).unwrap().bytes, spool.bytes()), (20, 20));
    assert!(spool.has_room(100_000));
}

#[test]
fn the_next_record_is_written_over_that_of_a_recording_that_was_stored() {
    let state = tempfile::tempdir().unwrap();
    let spool = Spool::open(state.path(), limits(10)).unwrap();
    let dir = spool.dir().to_owned();
    let names = || {
        let names = std::fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().path());
        let mut names: Vec<_> = names
            .filter(|path| path.extension().is_some_and(|found| found == "json" || found == "spare"))
            .collect();
        names.sort();
        names
    };
    let stored = put(&spool, "a", 10);
    let file = spool.path(&spool.get(stored).unwrap().record);
    spool.stored(stored).unwrap();
    assert!(!file.exists() && spool.get(stored).is_none());
    assert_eq!(names(), [file.with_extension("spare")]);
    let next = put(&spool, "b", 20);
    let record = spool.get(next).unwrap().record;
    assert_eq!(names(), [record.path(spool.dir(), "json")]);
    assert_eq!(Record::read(&names()[0]).unwrap(), Some(record));
    // One that is deleted is gone, and the last process' spares are nobody's.
    spool.remove(next).unwrap();
    assert!(names().is_empty());
    let last = put(&spool, "c", 30);
    spool.stored(last).unwrap();
    assert_eq!(names().len(), 1);
    drop(spool);
    let again = Spool::open(state.path(), limits(10)).unwrap();
    assert!(again.all().is_empty() && names().is_empty());
}
