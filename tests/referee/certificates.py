"""A device's authority: root, intermediate, leaf, as edgeHub presents them; made with the openssl program."""

import pathlib
import ssl
import subprocess
import tempfile
import threading


def _openssl(*arguments, text=None):
    subprocess.run(["openssl", *map(str, arguments)], input=text, text=True, check=True, capture_output=True)


class Authority:
    """One root, and as many intermediates and leaves as are asked for."""

    def __init__(self):
        self._folder = tempfile.TemporaryDirectory(prefix="referee-ca-")
        self.folder = pathlib.Path(self._folder.name)
        self._made, self._lock = 0, threading.Lock()
        self._key("root")
        self._sign("root", "root", "Referee Root CA", "basicConstraints=critical,CA:TRUE", 3650)

    def _key(self, name):
        # RSA is what IoT Edge's own certificates have; devices may bring others.
        kind = ["genrsa", "2048"] if self._made % 2 else ["ecparam", "-name", "prime256v1", "-genkey", "-noout"]
        _openssl(kind[0], "-out", self.folder / f"{name}.key", *kind[1:])

    def _sign(self, name, issuer, subject, extensions, days):
        path = self.folder
        _openssl("req", "-new", "-key", path / f"{name}.key", "-subj", f"/CN={subject}", "-out", path / f"{name}.csr")
        (path / f"{name}.ext").write_text(extensions)
        signer = ["-CA", path / f"{issuer}.pem", "-CAkey", path / f"{issuer}.key", "-CAcreateserial"]
        if issuer == name:
            signer = ["-signkey", path / f"{name}.key"]
        _openssl(
            "x509",
            "-req",
            "-in",
            path / f"{name}.csr",
            *signer,
            "-days",
            days,
            "-extfile",
            path / f"{name}.ext",
            "-out",
            path / f"{name}.pem",
        )

    @property
    def root(self):
        """The root certificate as PEM: what the trust bundle holds."""
        return (self.folder / "root.pem").read_text()

    def leaf(self, names, days=30):
        """(key, leaf + intermediate) as PEM, of a new intermediate; `names` are DNS names or `IP:` addresses."""
        with self._lock:
            return self._leaf(names, days)

    def _leaf(self, names, days):
        self._made += 1
        middle, leaf = f"middle{self._made}", f"leaf{self._made}"
        self._key(middle)
        self._sign(middle, "root", f"Referee {middle}", "basicConstraints=critical,CA:TRUE,pathlen:0", 365)
        self._key(leaf)
        wanted = ",".join(name if name.startswith("IP:") else f"DNS:{name}" for name in names)
        self._sign(leaf, middle, names[0][:60], f"subjectAltName={wanted}\nextendedKeyUsage=serverAuth", days)
        path = self.folder / f"{leaf}.p8"
        _openssl("pkcs8", "-topk8", "-nocrypt", "-in", self.folder / f"{leaf}.key", "-out", path)
        chain = (self.folder / f"{leaf}.pem").read_text() + (self.folder / f"{middle}.pem").read_text()
        return path.read_text(), chain

    def context(self, names):
        """A server's TLS with a new intermediate and leaf."""
        key, chain = self.leaf(names)
        file = self.folder / f"served{id(key)}.pem"
        file.write_text(key + chain)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.load_cert_chain(file)
        return context
