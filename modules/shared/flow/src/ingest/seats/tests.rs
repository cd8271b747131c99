use super::*;

fn who(last: u8, program: &str) -> Identity {
    Identity { address: IpAddr::from([10, 0, 0, last]), program: program.into() }
}

/// A stream on which publishers are connected until they go.
struct Rig {
    seats: Seats,
    start: Instant,
}

impl Rig {
    fn new() -> Self {
        Self { seats: Seats::default(), start: Instant::now() }
    }

    fn at(&self, seconds: f64) -> Instant {
        self.start + Duration::from_secs_f64(seconds)
    }

    /// Comes while whoever came before is still connected.
    fn over(&mut self, seconds: f64, who: &Identity) -> Result<Seat, Taken> {
        self.seats.enter(who.clone(), true, true, self.at(seconds))
    }

    fn free(&mut self, seconds: f64, who: &Identity) -> Seat {
        self.seats.enter(who.clone(), false, true, self.at(seconds)).unwrap()
    }

    /// Sends 25 pictures a second.
    fn sends(&self, seat: &Seat, until: f64) {
        seat.0.note(self.at(until - 0.04));
    }
}

#[test]
fn a_displaced_publisher_is_refused_while_the_new_one_is_live_and_remembered() {
    let (mut rig, a, b) = (Rig::new(), who(1, "a"), who(2, "b"));
    let _first = rig.free(0.0, &a);
    let second = rig.over(0.0, &b).unwrap();
    rig.sends(&second, 29.0);
    assert_eq!(rig.over(29.0, &a).unwrap_err(), Taken::Displaced);
    // The new one ended: come in.
    rig.free(29.0, &a);
}

#[test]
fn after_half_a_minute_it_may_take_over_again() {
    let (mut rig, a, b) = (Rig::new(), who(1, "a"), who(2, "b"));
    let _first = rig.free(0.0, &a);
    let second = rig.over(0.0, &b).unwrap();
    rig.sends(&second, 31.0);
    rig.over(31.0, &a).unwrap();
}

#[test]
fn with_reject_the_first_stays_and_a_silent_one_gives_way_to_itself_alone() {
    let (mut rig, a, b) = (Rig::new(), who(1, "a"), who(2, "b"));
    let enter = |rig: &mut Rig, who: &Identity, live, seconds| {
        let now = rig.at(seconds);
        rig.seats.enter(who.clone(), live, false, now)
    };
    let first = enter(&mut rig, &a, false, 0.0).unwrap();
    rig.sends(&first, 5.0);
    for (again, seconds) in [(&b, 5.0), (&a, 5.0), (&b, 7.0)] {
        assert_eq!(enter(&mut rig, again, true, seconds).unwrap_err(), Taken::Reject);
    }
    enter(&mut rig, &a, true, 7.0).unwrap();
    enter(&mut rig, &b, false, 8.0).unwrap();
}

#[test]
fn an_encoder_whose_network_comes_and_goes_is_let_in_each_time() {
    for silence in [0.6, 1.0, 2.0, 5.0, 9.0] {
        let (mut rig, cam) = (Rig::new(), who(1, "cam"));
        let mut seats = vec![rig.free(0.0, &cam)];
        let mut now = 0.0;
        for _ in 0..8 {
            now += 2.0;
            rig.sends(seats.last().unwrap(), now);
            // Nothing comes from the old connections any more, and nobody closes them.
            now += silence;
            seats.push(rig.over(now, &cam).unwrap());
        }
    }
}

#[test]
fn an_encoder_that_changes_networks_is_let_in_once_the_connection_before_is_silent() {
    let (mut rig, wifi, cell) = (Rig::new(), who(1, "cam"), who(2, "cam"));
    let mut seat = rig.free(0.0, &wifi);
    let mut now = 0.0;
    for turn in 0..8 {
        now += 2.0;
        rig.sends(&seat, now);
        now += 1.5;
        seat = rig.over(now, if turn % 2 == 0 { &cell } else { &wifi }).unwrap();
    }
}

#[test]
fn two_live_encoders_behind_one_address_that_call_themselves_the_same_do_not_take_turns() {
    let (mut rig, same) = (Rig::new(), who(1, "OBS"));
    let first = rig.free(0.0, &same);
    rig.sends(&first, 5.0);
    let second = rig.over(5.0, &same).unwrap();
    for tenth in 1..250 {
        let now = 5.0 + f64::from(tenth) / 10.0;
        rig.sends(&second, now);
        assert_eq!(rig.over(now, &same).unwrap_err(), Taken::Displaced);
    }
}

#[test]
fn a_slow_one_that_still_speaks_when_it_was_displaced_is_another_one() {
    let (mut rig, same) = (Rig::new(), who(1, "timelapse"));
    let first = rig.free(0.0, &same);
    first.0.note(rig.at(5.0));
    let second = rig.over(5.9, &same).unwrap();
    rig.sends(&second, 6.5);
    // Its next picture, or the end of its connection.
    first.0.note(rig.at(6.0));
    assert_eq!(rig.over(6.5, &same).unwrap_err(), Taken::Displaced);
}

#[test]
fn who_is_let_in_again_is_no_displaced_one_any_more() {
    let (mut rig, a, b) = (Rig::new(), who(1, "a"), who(2, "b"));
    let _a = rig.free(0.0, &a);
    let _b = rig.over(1.0, &b).unwrap();
    let seat = rig.free(2.0, &a);
    rig.sends(&seat, 5.0);
    // Its connection broke without a word; nobody else is there.
    rig.over(5.8, &a).unwrap();
}
