use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use av_edge::{CertificateSource, Certificates, Context, Renewal, ServerCertificate};
use futures_util::future::BoxFuture;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use sha2::{Digest, Sha256};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;
use crate::config::{ClientTls, ServerTls};
use crate::net::tests::{context, net_with_hosts};
use crate::net::{Connection, DialError, Listener, Net, ServerTlsAcceptor};

const NAME: &str = "splitter.example";

fn net() -> Net {
    net_with_hosts([(NAME, [127, 0, 0, 1]), ("other.example", [127, 0, 0, 1])])
}

struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    /// Writes `ca.pem`, `cert.pem` and `key.pem`; gives the leaf's SHA-256.
    fn issue(&self, dir: &Path, name: &str) -> [u8; 32] {
        let key = KeyPair::generate().unwrap();
        let leaf = CertificateParams::new(vec![name.to_owned()]).unwrap().signed_by(&key, &self.0).unwrap();
        std::fs::write(dir.join("ca.pem"), self.0.pem()).unwrap();
        std::fs::write(dir.join("cert.pem"), leaf.pem()).unwrap();
        std::fs::write(dir.join("key.pem"), key.serialize_pem()).unwrap();
        Sha256::digest(leaf.der().as_ref()).into()
    }
}

fn files(dir: &Path) -> ServerTls {
    ServerTls {
        certificate_file: Some(dir.join("cert.pem")),
        key_file: Some(dir.join("key.pem")),
        host_name: None,
    }
}

fn trusting(dir: &Path) -> ClientTls {
    ClientTls { ca_file: Some(dir.join("ca.pem")), ..ClientTls::default() }
}

/// One connection: what the client got, and whether the server was content.
async fn meet(
    acceptor: &ServerTlsAcceptor,
    host: &str,
    client: &ClientTls,
) -> (Result<Connection, DialError>, bool) {
    let listener = Listener::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let port = listener.address().port();
    let acceptor = acceptor.clone();
    let server = tokio::spawn(async move {
        let (stream, _) = listener.accept().await;
        let Ok(mut stream) = acceptor.accept(stream).await else { return false };
        let mut heard = [0; 4];
        // The client says `ping` when it is content.
        let content = stream.read_exact(&mut heard).await.is_ok() && &heard == b"ping";
        let _ = stream.write_all(b"pong").await;
        let _ = stream.shutdown().await;
        content
    });
    let mut connection = net().dial(host, port, Some(client)).await;
    if let Ok(connection) = &mut connection {
        connection.writer.write_all(b"ping").await.unwrap();
        connection.writer.flush().await.unwrap();
        let mut heard = [0; 4];
        connection.reader.read_exact(&mut heard).await.unwrap();
        assert_eq!(&heard, b"pong");
    }
    (connection, server.await.unwrap())
}

#[tokio::test]
async fn a_certificate_signed_by_the_ca_file_is_trusted_for_its_name() {
    let dir = tempfile::tempdir().unwrap();
    Authority::new().issue(dir.path(), NAME);
    let acceptor = net().tls_acceptor(&files(dir.path())).await.unwrap();
    let (connection, content) = meet(&acceptor, NAME, &trusting(dir.path())).await;
    connection.unwrap();
    assert!(content);
}

/// What `openssl req -x509` makes: it signs itself, and says that it is an authority.
fn sign_oneself(dir: &Path, valid_until: i32) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec![NAME.to_owned()]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.not_after = rcgen::date_time_ymd(valid_until, 1, 1);
    let own = params.self_signed(&key).unwrap();
    std::fs::write(dir.join("ca.pem"), own.pem()).unwrap();
    std::fs::write(dir.join("cert.pem"), own.pem()).unwrap();
    std::fs::write(dir.join("key.pem"), key.serialize_pem()).unwrap();
}

#[tokio::test]
async fn a_certificate_that_signs_itself_is_trusted_where_ca_file_holds_it() {
    let dir = tempfile::tempdir().unwrap();
    sign_oneself(dir.path(), 2200);
    let acceptor = net().tls_acceptor(&files(dir.path())).await.unwrap();
    meet(&acceptor, NAME, &trusting(dir.path())).await.0.unwrap();
    let error = meet(&acceptor, "other.example", &trusting(dir.path())).await.0.unwrap_err();
    assert!(matches!(error, DialError::Tls { source: TlsError::WrongName(_), .. }), "{error}");
    meet(&acceptor, NAME, &ClientTls::default()).await.0.unwrap_err();

    // Another one that signs itself, of the same name.
    let other = tempfile::tempdir().unwrap();
    sign_oneself(other.path(), 2200);
    meet(&acceptor, NAME, &trusting(other.path())).await.0.unwrap_err();
}

#[tokio::test]
async fn a_certificate_of_ca_file_that_is_out_of_date_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    sign_oneself(dir.path(), 2020);
    let acceptor = net().tls_acceptor(&files(dir.path())).await.unwrap();
    let error = meet(&acceptor, NAME, &trusting(dir.path())).await.0.unwrap_err();
    assert!(matches!(error, DialError::Tls { source: TlsError::NotValidNow(_), .. }), "{error}");
}

#[tokio::test]
async fn an_unknown_issuer_is_refused_and_the_text_says_what_to_set() {
    let dir = tempfile::tempdir().unwrap();
    Authority::new().issue(dir.path(), NAME);
    let acceptor = net().tls_acceptor(&files(dir.path())).await.unwrap();
    let (connection, content) = meet(&acceptor, NAME, &ClientTls::default()).await;
    let error = connection.unwrap_err();
    assert!(matches!(error, DialError::Tls { source: TlsError::UnknownIssuer, .. }), "{error}");
    assert!(error.to_string().contains("tls.caFile") && error.to_string().contains(NAME), "{error}");
    assert!(!content);
}

#[tokio::test]
async fn another_name_is_refused_unless_host_name_asks_for_it() {
    let dir = tempfile::tempdir().unwrap();
    Authority::new().issue(dir.path(), NAME);
    let acceptor = net().tls_acceptor(&files(dir.path())).await.unwrap();
    let (connection, _) = meet(&acceptor, "other.example", &trusting(dir.path())).await;
    let error = connection.unwrap_err();
    assert!(matches!(error, DialError::Tls { source: TlsError::WrongName(_), .. }), "{error}");

    let named = ClientTls { host_name: Some(NAME.into()), ..trusting(dir.path()) };
    meet(&acceptor, "other.example", &named).await.0.unwrap();
}

#[tokio::test]
async fn a_pinned_certificate_needs_no_authority_and_another_one_does_not_pass() {
    let dir = tempfile::tempdir().unwrap();
    let pin = Authority::new().issue(dir.path(), NAME);
    let acceptor = net().tls_acceptor(&files(dir.path())).await.unwrap();
    let pinned = ClientTls { pin_sha256: Some(pin), ..ClientTls::default() };
    meet(&acceptor, "other.example", &pinned).await.0.unwrap();

    let wrong = ClientTls { pin_sha256: Some([7; 32]), ..ClientTls::default() };
    let error = meet(&acceptor, NAME, &wrong).await.0.unwrap_err();
    assert!(matches!(error, DialError::Tls { source: TlsError::WrongPin(_), .. }), "{error}");
}

#[tokio::test]
async fn replaced_certificate_files_are_used_without_cutting_open_connections() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    let old = authority.issue(dir.path(), NAME);
    let acceptor = net().tls_acceptor(&files(dir.path())).await.unwrap();
    let pinned = |pin| ClientTls { pin_sha256: Some(pin), ..ClientTls::default() };
    let listener = Listener::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let port = listener.address().port();
    let (net, trust) = (net(), pinned(old));
    let (client, server) = tokio::join!(net.dial(NAME, port, Some(&trust)), async {
        let (stream, _) = listener.accept().await;
        acceptor.accept(stream).await.unwrap()
    });
    let (mut open, mut server) = (client.unwrap(), server);

    let new = authority.issue(dir.path(), NAME);
    // Looked at once a second: wait until the new one shows.
    let deadline = std::time::Instant::now() + Duration::from_secs(20);
    while meet(&acceptor, NAME, &pinned(new)).await.0.is_err() {
        assert!(std::time::Instant::now() < deadline, "the new certificate never showed");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    server.write_all(b"still here").await.unwrap();
    server.flush().await.unwrap();
    let mut heard = [0; 10];
    open.reader.read_exact(&mut heard).await.unwrap();
    assert_eq!(&heard, b"still here");
}

/// An edge runtime whose certificates are due as soon as they are issued.
struct Overdue {
    authority: Authority,
    asked: AtomicUsize,
}

impl CertificateSource for Overdue {
    fn server(&self, host_name: &str) -> BoxFuture<'_, Result<ServerCertificate, String>> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        let dir = tempfile::tempdir().unwrap();
        self.authority.issue(dir.path(), host_name);
        let text = |name: &str| std::fs::read_to_string(dir.path().join(name)).unwrap();
        let issued = ServerCertificate {
            chain_pem: text("cert.pem"),
            key_pem: text("key.pem"),
            renewal: Renewal::after(Duration::ZERO),
        };
        Box::pin(std::future::ready(Ok(issued)))
    }

    fn trust_bundle(&self) -> BoxFuture<'_, Result<String, String>> {
        Box::pin(std::future::ready(Ok(self.authority.0.pem())))
    }
}

#[tokio::test]
async fn a_certificate_that_is_due_when_it_is_issued_is_not_asked_for_at_every_handshake() {
    let dir = tempfile::tempdir().unwrap();
    let runtime = Arc::new(Overdue { authority: Authority::new(), asked: AtomicUsize::new(0) });
    std::fs::write(dir.path().join("ca.pem"), runtime.authority.0.pem()).unwrap();
    let certificates = Certificates::from_source(runtime.clone());
    let net = Net::new(&Context { certificates, ..context([]) });
    let tls = ServerTls { host_name: Some(NAME.into()), ..ServerTls::default() };
    let acceptor = net.tls_acceptor(&tls).await.unwrap();
    for _ in 0..5 {
        meet(&acceptor, NAME, &trusting(dir.path())).await.0.unwrap();
    }
    // At the start, and when the first handshake finds that due.
    assert_eq!(runtime.asked.load(Ordering::Relaxed), 2);
}

#[tokio::test]
async fn a_key_of_another_certificate_is_refused_at_start() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    authority.issue(dir.path(), NAME);
    let key = std::fs::read(dir.path().join("key.pem")).unwrap();
    authority.issue(dir.path(), NAME);
    std::fs::write(dir.path().join("key.pem"), key).unwrap();
    let error = net().tls_acceptor(&files(dir.path())).await.unwrap_err();
    assert!(matches!(error, TlsError::Unusable(_)), "{error}");
}

#[tokio::test]
async fn a_missing_file_is_named_with_its_option() {
    let dir = tempfile::tempdir().unwrap();
    let error = net().tls_acceptor(&files(dir.path())).await.unwrap_err().to_string();
    assert!(error.contains("tls.certificateFile") && error.contains("cert.pem"), "{error}");
    Authority::new().issue(dir.path(), NAME);
    std::fs::write(dir.path().join("key.pem"), "no key").unwrap();
    let error = net().tls_acceptor(&files(dir.path())).await.unwrap_err().to_string();
    assert!(error.contains("tls.keyFile") && error.contains("key.pem"), "{error}");
}

#[tokio::test]
async fn without_files_and_without_an_edge_runtime_the_error_says_what_to_set() {
    let tls = ServerTls { host_name: Some(NAME.into()), ..ServerTls::default() };
    let error = net().tls_acceptor(&tls).await.unwrap_err().to_string();
    assert!(error.contains("tls.certificateFile"), "{error}");
    let error = net().tls_acceptor(&ServerTls::default()).await.unwrap_err();
    assert!(matches!(error, TlsError::NoHostName), "{error}");
}

#[tokio::test]
async fn a_peer_that_does_not_speak_tls_is_said_not_to() {
    let listener = Listener::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let port = listener.address().port();
    let server = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await;
        let _ = stream.write_all(b"\x03not TLS at all, whatever you say").await;
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest).await;
    });
    let error = net().dial(NAME, port, Some(&ClientTls::default())).await.unwrap_err();
    assert!(matches!(error, DialError::Tls { source: TlsError::Protocol(_), .. }), "{error}");
    server.await.unwrap();
}
