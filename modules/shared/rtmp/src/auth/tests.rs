//! The dialogue, both sides joined and against a response computed by hand.

use super::*;

fn credentials() -> Credentials {
    Credentials { username: "user".to_owned(), password: "p@ss word".to_owned() }
}

/// Goes through the connections of one client; what the server says last.
fn dialogue(server: &mut AdobeAuth, client: &Credentials, wanted: &Credentials) -> (AuthStep, usize) {
    let mut query: Option<String> = None;
    for connections in 1..10 {
        let step = server.check(query.as_deref(), wanted);
        let (AuthStep::Challenge(description) | AuthStep::Denied(description)) = &step else {
            return (step, connections);
        };
        let tried = query.as_deref().is_some_and(|query| query.contains("&response="));
        match answer(description, Some(client), "live", tried) {
            Answer::Query(next) => query = Some(next),
            Answer::Final => return (step, connections),
        }
    }
    panic!("no end");
}

#[test]
fn the_right_password_is_accepted_on_the_third_connection() {
    let (step, connections) = dialogue(&mut AdobeAuth::new(), &credentials(), &credentials());
    assert_eq!((step, connections), (AuthStep::Accepted, 3));
}

#[test]
fn a_wrong_password_or_user_is_denied_and_the_client_gives_up() {
    for wrong in [
        Credentials { password: "guess".to_owned(), ..credentials() },
        Credentials { username: "other".to_owned(), ..credentials() },
    ] {
        let (step, connections) = dialogue(&mut AdobeAuth::new(), &wrong, &credentials());
        assert!(matches!(step, AuthStep::Denied(text) if text.contains("?reason=authfailed")));
        assert_eq!(connections, 3);
    }
}

#[test]
fn a_response_is_good_once() {
    let mut server = AdobeAuth::new();
    let AuthStep::Challenge(text) = server.check(Some("authmod=adobe&user=user"), &credentials()) else {
        panic!("no challenge");
    };
    let Answer::Query(query) = answer(&text, Some(&credentials()), "live", false) else { panic!("{text}") };
    assert_eq!(server.check(Some(&query), &credentials()), AuthStep::Accepted);
    assert!(matches!(server.check(Some(&query), &credentials()), AuthStep::Denied(_)));
}

#[test]
fn a_response_to_no_challenge_is_denied() {
    let query = "authmod=adobe&user=user&challenge=00000000&response=AAAA";
    assert!(matches!(AdobeAuth::new().check(Some(query), &credentials()), AuthStep::Denied(_)));
}

#[test]
fn open_challenges_are_bounded() {
    let mut server = AdobeAuth::new();
    for _ in 0..3000 {
        server.check(Some("authmod=adobe&user=x"), &credentials());
    }
    assert_eq!(server.open.len(), MAX_OPEN);
}

#[test]
fn the_response_is_what_other_implementations_compute() {
    // python3: b64(md5(b64(md5(b"user"+b"salt"+b"pass")) + b"theirs" + b"mine"))
    assert_eq!(adobe_response("user", "salt", "pass", "theirs", "mine"), "GJAC6Fi4/iMEYWREDbJOpA==");
    // python3: md5(md5("user:live:pass"):"nonce":00000001:"cn":auth:md5("publish:/app/_definst_")), all in hex
    assert_eq!(llnw_response("user", "pass", "app?x=1", "nonce", "cn"), "1b5e76bc28d7180685becb579e67e21a");
}

#[test]
fn without_credentials_or_scheme_there_is_nothing_to_answer() {
    let text = "[ AccessManager.Reject ] : [ code=403 need auth; authmod=adobe ] : ";
    assert_eq!(answer(text, None, "live", false), Answer::Final);
    assert_eq!(answer("go away", Some(&credentials()), "live", false), Answer::Final);
}

#[test]
fn passwords_are_not_shown() {
    assert!(!format!("{:?}", credentials()).contains("p@ss"));
}
