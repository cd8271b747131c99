use super::*;

fn user() -> Credentials {
    Credentials { username: "cam\"era".into(), password: "pass:wörd".into() }
}

const URI: &str = "rtsp://h:8554/live/one";

#[test]
fn the_examples_of_the_standards_come_out() {
    // RFC 7616 §3.9.1.
    let who = Credentials { username: "Mufasa".into(), password: "Circle of Life".into() };
    let exchange = Exchange {
        realm: "http-auth@example.org",
        nonce: "7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v",
        method: "GET",
        uri: "/dir/index.html",
        quality: Some(("00000001", "f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ")),
    };
    assert_eq!(exchange.response(Algorithm::Md5, &who), "8ca523f5e9506fed4657c9700eebdbec");
    assert_eq!(
        exchange.response(Algorithm::Sha256, &who),
        "753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1"
    );
}

fn challenged(server: &ServerAuth) -> ClientAuth {
    let mut client = ClientAuth::new(user(), [7; 16]);
    assert!(client.challenged(server.challenges().iter().map(String::as_str)));
    client
}

#[test]
fn sha_256_is_offered_first_and_md5_last() {
    let plain = ServerAuth::new([1; 16], false).challenges();
    assert!(plain[0].contains("SHA-256") && plain.len() == 2);
    assert!(plain[1].starts_with("Digest") && !plain[1].contains("algorithm"));
    let tls = ServerAuth::new([1; 16], true).challenges();
    assert!(tls[1].starts_with("Basic") && tls[2].starts_with("Digest"));
}

#[test]
fn a_client_that_knows_the_password_is_let_in_by_every_scheme() {
    let server = ServerAuth::new([1; 16], true);
    for challenge in server.challenges() {
        let mut client = ClientAuth::new(user(), [7; 16]);
        assert!(client.challenged([challenge.as_str()].into_iter()));
        for method in ["DESCRIBE", "SETUP"] {
            let header = client.header(method, URI);
            assert_eq!(server.check(header.as_deref(), method, URI, &user()), Verdict::Granted, "{header:?}");
        }
    }
}

#[test]
fn a_wrong_user_password_method_or_nonce_is_not() {
    let server = ServerAuth::new([1; 16], false);
    let header = challenged(&server).header("DESCRIBE", URI);
    let check = |server: &ServerAuth, method, uri, who: &Credentials| {
        server.check(header.as_deref(), method, uri, who)
    };
    let other =
        |username: &str, password: &str| Credentials { username: username.into(), password: password.into() };
    assert_eq!(check(&server, "DESCRIBE", URI, &other("cam\"era", "x")), Verdict::Wrong);
    assert_eq!(check(&server, "DESCRIBE", URI, &other("x", "pass:wörd")), Verdict::Wrong);
    assert_eq!(check(&server, "SETUP", URI, &user()), Verdict::Wrong);
    assert_eq!(check(&server, "DESCRIBE", "rtsp://h/other", &user()), Verdict::Wrong);
    assert_eq!(check(&ServerAuth::new([2; 16], false), "DESCRIBE", URI, &user()), Verdict::Missing);
    let junk = "Basic AAAA";
    for header in [None, Some("Digest"), Some("Bearer x"), Some("Digest x=y"), Some(junk), Some("")] {
        assert_eq!(server.check(header, "DESCRIBE", URI, &user()), Verdict::Missing, "{header:?}");
    }
}

#[test]
fn the_uri_may_be_a_path_or_the_base_with_a_slash_or_without() {
    let server = ServerAuth::new([1; 16], false);
    let setup = "rtsp://h:8554/live/one/trackID=0";
    for uri in ["/live/one", "rtsp://h:8554/live/one/", "rtsp://h:8554/live/one", setup, "/"] {
        let header = challenged(&server).header("SETUP", uri);
        assert_eq!(server.check(header.as_deref(), "SETUP", setup, &user()), Verdict::Granted, "{uri}");
    }
}

#[test]
fn a_quoted_algorithm_and_an_upper_case_response_are_understood() {
    let server = ServerAuth::new([1; 16], false);
    let header = challenged(&server).header("PLAY", URI).unwrap();
    let header = header.replace("algorithm=SHA-256", "algorithm=\"sha-256\"");
    let (before, response) = header.split_once("response=\"").unwrap();
    let (response, after) = response.split_once('"').unwrap();
    let header = format!("{before}response=\"{}\"{after}", response.to_uppercase());
    assert_eq!(server.check(Some(&header), "PLAY", URI, &user()), Verdict::Granted);
}

#[test]
fn a_client_that_does_not_repeat_the_algorithm_is_understood() {
    let server = ServerAuth::new([1; 16], false);
    for challenge in server.challenges() {
        let mut client = ClientAuth::new(user(), [7; 16]);
        assert!(client.challenged([challenge.as_str()].into_iter()));
        let header = client.header("DESCRIBE", URI).unwrap();
        let header = header.replace(", algorithm=SHA-256", "").replace(", algorithm=MD5", "");
        assert!(!header.contains("algorithm"), "{header}");
        assert_eq!(server.check(Some(&header), "DESCRIBE", URI, &user()), Verdict::Granted, "{header}");
        let other = Credentials { username: user().username, password: "x".into() };
        assert_eq!(server.check(Some(&header), "DESCRIBE", URI, &other), Verdict::Wrong, "{header}");
    }
}

#[test]
fn a_client_answers_with_quality_and_gives_up_after_a_refusal() {
    let mut client = ClientAuth::new(user(), [7; 16]);
    let digest = "Digest realm=\"a\", nonce=\"n\", qop=\"auth-int,auth\", opaque=\"o,p\", algorithm=MD5";
    assert!(!client.challenged(["Bearer x", "Digest realm=x, nonce=n, algorithm=SHA-512"].into_iter()));
    assert!(client.header("OPTIONS", URI).is_none());
    assert!(client.challenged(["Basic realm=\"a\"", digest].into_iter()));
    let header = client.header("OPTIONS", URI).unwrap();
    assert!(header.contains("qop=auth, nc=00000001") && header.contains("opaque=\"o,p\""), "{header}");
    assert!(header.contains("username=\"cam\\\"era\""), "{header}");
    assert!(!client.challenged([digest].into_iter()));
    assert!(client.challenged([digest.replace("\"n\"", "\"fresh\"").as_str()].into_iter()));
}
