use proptest::prelude::*;
use serde_json::json;

use super::super::merge::tests::{any_object, object};
use super::*;

/// What a hub does with reports, and with what gets lost on the way.
#[derive(Clone, Copy, Debug)]
enum Fate {
    Stored,
    AnswerLost,
    PatchLost,
    Throttled,
    CutAfter,
    CutBefore,
}

fn any_fate() -> impl Strategy<Value = Fate> {
    prop_oneof![
        Just(Fate::Stored),
        Just(Fate::AnswerLost),
        Just(Fate::PatchLost),
        Just(Fate::Throttled),
        Just(Fate::CutAfter),
        Just(Fate::CutBefore),
    ]
}

fn document(flows: Value) -> Map<String, Value> {
    object(json!({"summary": {"flows": 1}, "flows": flows}))
}

fn connected(hub: Value) -> Reported {
    let mut reported = Reported::default();
    reported.connected(Some(hub));
    reported
}

fn stored(reported: &mut Reported, document: &Map<String, Value>, id: u64, now: Instant) -> Value {
    let patch = reported.poll(document, id, now).expect("a patch");
    assert_eq!(reported.on_answer(id, 204, now), Verdict::Stored);
    Value::Object(patch)
}

#[test]
fn the_first_report_is_the_whole_picture_and_deletes_what_is_obsolete() {
    let mut reported = connected(
        json!({"old": 1, "flows": {"gone": {"state": "failed"}}, "summary": {"flows": 1}, "$version": 3}),
    );
    let patch = stored(&mut reported, &document(json!({"a": {"state": "running"}})), 1, Instant::now());
    let expected = json!({
        "old": null,
        "summary": {"flows": 1},
        "flows": {"gone": {"state": null}, "a": {"state": "running"}},
    });
    // `gone` may be gone by deleting it or all it holds.
    let mut patch = patch;
    if patch["flows"]["gone"].is_null() {
        patch["flows"]["gone"] = json!({"state": null});
    }
    assert_eq!(patch, expected);
}

#[test]
fn later_patches_hold_only_what_changed_and_keep_the_pace() {
    let start = Instant::now();
    let mut reported = connected(json!({}));
    stored(&mut reported, &document(json!({"a": {"clients": 1}, "b": {"clients": 1}})), 1, start);
    let changed = document(json!({"a": {"clients": 2}, "b": {"clients": 1}}));
    assert_eq!(reported.poll(&changed, 2, start + Duration::from_secs(1)), None);
    assert_eq!(reported.deadline(), Some(start + PACE));
    assert_eq!(stored(&mut reported, &changed, 2, start + PACE), json!({"flows": {"a": {"clients": 2}}}));
    let gone = document(json!({"b": {"clients": 1}}));
    reported.hurry();
    assert_eq!(stored(&mut reported, &gone, 3, start + PACE), json!({"flows": {"a": null}}));
    assert_eq!(reported.poll(&gone, 4, start + PACE * 9), None);
    assert_eq!(reported.deadline(), None);
}

#[test]
fn a_state_that_flaps_is_reported_once_a_minute_and_its_last_word_arrives() {
    let start = Instant::now();
    let mut reported = connected(json!({}));
    let state = |state: &str, other: u64| {
        document(json!({"a": {"state": state}, "b": {"state": "running", "clients": other}}))
    };
    stored(&mut reported, &state("running", 0), 1, start);
    let (mut hub, mut of_a, mut of_b) = ("running".to_owned(), 0, 0);
    let mut seconds = 6;
    while seconds < 600 {
        let now = start + Duration::from_secs(seconds);
        let flapping = if seconds.is_multiple_of(12) { "retrying" } else { "running" };
        if let Some(patch) = reported.poll(&state(flapping, seconds), seconds, now) {
            let patch = Value::Object(patch);
            if let Some(state) = patch["flows"]["a"]["state"].as_str() {
                hub = state.to_owned();
                of_a += 1;
            }
            of_b += usize::from(patch["flows"]["b"]["clients"].is_u64());
            reported.on_answer(seconds, 204, now);
        }
        seconds += 6;
    }
    assert!((9..=12).contains(&of_a), "{of_a} in ten minutes");
    assert!(of_b > 90, "a quiet flow is not held up: {of_b}");
    for quiet in 0..20 {
        let now = start + Duration::from_secs(600 + quiet * 6);
        if let Some(patch) = reported.poll(&state("failed", 0), 1000 + quiet, now) {
            if let Some(state) = Value::Object(patch)["flows"]["a"]["state"].as_str() {
                hub = state.to_owned();
            }
            reported.on_answer(1000 + quiet, 204, now);
        }
    }
    assert_eq!(hub, "failed");
}

#[test]
fn a_state_that_lasts_is_reported_soon_though_others_came_before_it() {
    let start = Instant::now();
    let mut reported = connected(json!({}));
    for (round, state) in ["waiting", "running", "retrying"].into_iter().enumerate() {
        stored(
            &mut reported,
            &document(json!({"a": {"state": state}})),
            round as u64,
            start + PACE * round as u32,
        );
    }
    let (back, since) = (document(json!({"a": {"state": "running"}})), start + PACE * 3);
    assert_eq!(reported.poll(&back, 10, since), None);
    let free = reported.deadline().unwrap();
    assert!(free <= since + Duration::from_secs(15), "{:?}", free - since);
    stored(&mut reported, &back, 11, free);
    // One that goes on so is reported once a minute all the same.
    let flap = document(json!({"a": {"state": "retrying"}}));
    assert_eq!(reported.poll(&flap, 12, free + PACE), None);
    assert_eq!(reported.poll(&flap, 12, free + Duration::from_secs(30)), None);
    assert!(reported.deadline().unwrap() <= free + Duration::from_secs(120));
    assert!(reported.poll(&flap, 12, free + Duration::from_secs(120)).is_some());
}

#[test]
fn a_desired_change_is_answered_even_while_a_state_flaps() {
    let start = Instant::now();
    let mut reported = connected(json!({}));
    for (round, state) in ["running", "retrying", "running", "retrying"].into_iter().enumerate() {
        let now = start + PACE * round as u32;
        if reported.poll(&document(json!({"a": {"state": state}})), round as u64, now).is_some() {
            reported.on_answer(round as u64, 204, now);
        }
    }
    let held = document(json!({"a": {"state": "failed"}}));
    assert_eq!(reported.poll(&held, 10, start + PACE * 4), None);
    reported.hurry();
    assert!(reported.poll(&held, 11, start + PACE * 4).is_some());
}

#[test]
fn a_refused_patch_is_sent_again_ever_more_rarely_and_another_one_at_its_time() {
    let start = Instant::now();
    let mut reported = connected(json!({}));
    let bad = document(json!({"a": {"state": "bad"}}));
    let (mut now, mut sent) = (start, 0);
    while now < start + Duration::from_secs(3600) {
        if reported.poll(&bad, sent, now).is_some() {
            assert_eq!(reported.on_answer(sent, 400, now), Verdict::Refused);
            assert!(reported.deadline().is_some());
            sent += 1;
        }
        now += Duration::from_secs(1);
    }
    assert!((9..=14).contains(&sent), "{sent} in an hour");
    let good = document(json!({"a": {"state": "good"}}));
    assert!(reported.poll(&good, sent, now).is_some());
}

#[test]
fn what_changes_beside_a_refused_place_does_not_make_it_a_flood() {
    let start = Instant::now();
    let mut reported = connected(json!({}));
    let (mut now, mut sent) = (start, 0);
    while now < start + Duration::from_secs(3600) {
        let changing = document(json!({"a": {"state": "bad", "clients": (now - start).as_secs()}}));
        if reported.poll(&changing, sent, now).is_some() {
            assert_eq!(reported.on_answer(sent, 400, now), Verdict::Refused);
            sent += 1;
        }
        now += Duration::from_secs(1);
    }
    assert!((50..=70).contains(&sent), "{sent} in an hour");
}

#[test]
fn a_refusal_does_not_hold_up_the_answer_to_a_desired_change() {
    let start = Instant::now();
    let mut reported = connected(json!({}));
    assert!(reported.poll(&document(json!({"a": {"state": "bad"}})), 1, start).is_some());
    reported.hurry();
    assert_eq!(reported.on_answer(1, 400, start), Verdict::Refused);
    assert!(reported.poll(&document(json!({"a": {"state": "good"}})), 2, start).is_some());
}

#[test]
fn a_question_in_a_hurry_that_has_nothing_to_say_leaves_the_pace_as_it_was() {
    let start = Instant::now();
    let mut reported = connected(json!({}));
    stored(&mut reported, &document(json!({"a": {"clients": 1}})), 1, start);
    reported.hurry();
    assert_eq!(reported.poll(&document(json!({"a": {"clients": 1}})), 2, start + PACE / 4), None);
    assert_eq!(reported.poll(&document(json!({"a": {"clients": 2}})), 2, start + PACE / 2), None);
    assert_eq!(reported.deadline(), Some(start + PACE));
}

#[test]
fn a_flow_that_is_held_back_does_not_hold_back_another() {
    let start = Instant::now();
    let mut reported = connected(json!({}));
    let state = |state: &str, other: u64| document(json!({"a": {"state": state}, "b": {"clients": other}}));
    for (round, name) in [(0, "running"), (1, "waiting"), (2, "running")] {
        stored(&mut reported, &state(name, 0), round.into(), start + PACE * round);
    }
    let now = start + PACE * 3;
    assert_eq!(reported.poll(&state("waiting", 0), 3, now), None);
    assert!(reported.deadline().is_some_and(|time| now < time));
    assert_eq!(
        stored(&mut reported, &state("waiting", 1), 3, now + PACE / 5),
        json!({"flows": {"b": {"clients": 1}}})
    );
}

#[test]
fn a_flow_that_went_and_came_back_between_two_reports_has_flapped() {
    let start = Instant::now();
    let mut reported = connected(json!({}));
    let since = |time: u64| document(json!({"a": {"state": "running", "since": time}}));
    let (mut sent, mut now) = (0, start);
    while now < start + Duration::from_secs(60) {
        if reported.poll(&since((now - start).as_secs()), sent, now).is_some() {
            reported.on_answer(sent, 204, now);
            sent += 1;
        }
        now += PACE;
    }
    assert!(sent <= 3, "{sent} reports in a minute");
}

#[test]
fn what_is_held_back_never_makes_the_whole_too_long() {
    let start = Instant::now();
    let mut reported = connected(json!({}));
    let wanted = |state: &str, count: usize| {
        let url = "u".repeat(230);
        let flows = (0..count).map(|index| {
            (
                format!("f{index:03}"),
                json!({"state": state, "outputs": {"o": {"state": "serving", "url": url}}}),
            )
        });
        document(flows.collect::<Map<_, _>>().into())
    };
    let mut hub = Map::new();
    for (round, state, count) in
        [(0, "running", 90), (1, "waiting", 90), (2, "running", 90), (3, "waiting", 150)]
    {
        let patch = stored(&mut reported, &wanted(state, count), round.into(), start + PACE * round);
        merge(&mut hub, patch.as_object().unwrap());
        assert!(size(&hub) <= LIMIT, "{} bytes in round {round}", size(&hub));
    }
    assert_eq!(hub["config"]["truncated"], true);
}

#[test]
fn the_summary_agrees_with_a_flow_that_is_held_back() {
    let start = Instant::now();
    let mut reported = connected(json!({}));
    let wanted = |a: &str, b: &str| {
        let mut summary = json!({"running": 0, "waiting": 0});
        for state in [a, b] {
            summary[state] = json!(summary[state].as_u64().unwrap() + 1);
        }
        object(json!({"summary": summary, "flows": {"a": {"state": a}, "b": {"state": b}}}))
    };
    for (round, a) in [(0, "running"), (1, "waiting"), (2, "running")] {
        stored(&mut reported, &wanted(a, "running"), round.into(), start + PACE * round);
    }
    let patch = stored(&mut reported, &wanted("waiting", "waiting"), 3, start + PACE * 3);
    assert_eq!(patch, json!({"summary": {"running": 1, "waiting": 1}, "flows": {"b": {"state": "waiting"}}}));
}

#[test]
fn a_reconnect_does_not_quicken_the_pace() {
    let start = Instant::now();
    let mut reported = connected(json!({}));
    stored(&mut reported, &document(json!({"a": {"clients": 1}})), 1, start);
    reported.disconnected();
    reported.connected(Some(json!({"$version": 1})));
    let wanted = document(json!({"a": {"clients": 2}}));
    assert_eq!(reported.poll(&wanted, 2, start + PACE / 2), None);
    assert_eq!(reported.deadline(), Some(start + PACE));
    stored(&mut reported, &wanted, 2, start + PACE);
}

#[test]
fn a_throttled_report_waits_ever_longer() {
    let start = Instant::now();
    let mut reported = connected(json!({}));
    let wanted = document(json!({}));
    let (mut sent, mut now) = (0, start);
    while now < start + Duration::from_secs(120) {
        if reported.poll(&wanted, sent, now).is_some() {
            assert_eq!(reported.on_answer(sent, 429, now), Verdict::Later);
            sent += 1;
        }
        now += Duration::from_millis(500);
    }
    assert!((4..=6).contains(&sent), "{sent}");
}

#[test]
fn a_report_waits_for_an_answer_as_long_as_a_hub_may_take_and_strangers_are_ignored() {
    let start = Instant::now();
    let mut reported = connected(json!({}));
    let wanted = document(json!({}));
    for round in 0..4 {
        let now = start + ANSWER_TIME * round;
        assert!(reported.poll(&wanted, round.into(), now).is_some());
        assert_eq!(reported.on_answer(u64::from(round) + 100, 204, now), Verdict::Stranger);
        assert!(!reported.is_told());
        assert_eq!(reported.poll(&wanted, 50, now + Duration::from_secs(110)), None);
    }
    assert_eq!(reported.on_answer(3, 204, start + ANSWER_TIME * 4), Verdict::Stored);
    assert!(reported.is_told());
}

#[test]
fn the_hub_is_told_when_a_report_was_answered_or_needless_on_this_connection() {
    let start = Instant::now();
    let wanted = document(json!({}));
    let mut reported = connected(json!({}));
    for status in [204, 400, 500] {
        assert!(!reported.is_told());
        reported.hurry();
        assert!(reported.poll(&wanted, status, start + PACE * status as u32).is_some());
        assert!(!reported.is_told());
        reported.on_answer(status, status as u16, start + PACE * status as u32);
        assert!(reported.is_told());
        reported.disconnected();
        reported.connected(Some(json!({})));
    }
    let mut reported = connected(json!({}));
    stored(&mut reported, &wanted, 1, start);
    reported.disconnected();
    reported.connected(Some(Value::Object(wanted.clone())));
    assert!(!reported.is_told());
    assert_eq!(reported.poll(&wanted, 2, start + PACE), None);
    assert!(reported.is_told());
}

#[test]
fn a_patch_too_long_for_the_hub_goes_in_parts_deletions_first() {
    let start = Instant::now();
    let many = |prefix: &str| -> Value {
        (0..300)
            .map(|index| (format!("{prefix}{index:03}"), json!({"state": "running", "text": "x".repeat(40)})))
            .collect::<Map<_, _>>()
            .into()
    };
    let mut hub = object(json!({"flows": many("old")}));
    let mut reported = connected(Value::Object(hub.clone()));
    let wanted = document(many("new"));
    for id in 0..9 {
        let Some(patch) = reported.poll(&wanted, id, start) else { break };
        assert!(size(&patch) <= 32 * 1024, "{}", size(&patch));
        merge(&mut hub, &patch);
        assert!(size(&hub) < 40 * 1024);
        reported.on_answer(id, 204, start);
    }
    assert_eq!(settled(&hub), settled(&fit(&wanted)));
}

/// What is left when the empty objects are taken out that deleting members one by one leaves behind.
fn settled(document: &Map<String, Value>) -> Map<String, Value> {
    let kept = document.iter().filter_map(|(name, value)| match value {
        Value::Object(inner) => {
            Some((name.clone(), Value::Object(settled(inner)))).filter(|(_, inner)| *inner != json!({}))
        }
        other => Some((name.clone(), other.clone())),
    });
    kept.collect()
}

proptest! {
    /// Whatever is lost, throttled or cut: what the hub holds in the end is what the module means.
    #[test]
    fn the_hub_ends_with_the_document(
        initial in any_object(),
        steps in prop::collection::vec((any_object(), any_fate()), 0..12),
        last in any_object(),
    ) {
        let mut now = Instant::now();
        let mut hub = initial;
        let mut reported = connected(Value::Object(hub.clone()));
        let mut id = 0;
        for (wanted, fate) in steps {
            id += 1;
            now += Duration::from_secs(70);
            let Some(patch) = reported.poll(&wanted, id, now) else { continue };
            if !matches!(fate, Fate::PatchLost | Fate::Throttled | Fate::CutBefore) {
                merge(&mut hub, &patch);
            }
            match fate {
                Fate::Stored => drop(reported.on_answer(id, 204, now)),
                Fate::Throttled => drop(reported.on_answer(id, 429, now)),
                Fate::CutAfter | Fate::CutBefore => {
                    reported.disconnected();
                    reported.connected(Some(Value::Object(hub.clone())));
                }
                Fate::AnswerLost | Fate::PatchLost => {}
            }
        }
        for _ in 0..3 {
            id += 1;
            now += Duration::from_secs(70);
            if let Some(patch) = reported.poll(&last, id, now) {
                merge(&mut hub, &patch);
                reported.on_answer(id, 204, now);
            }
        }
        prop_assert_eq!(hub, fit(&last));
    }
}
