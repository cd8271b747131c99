//! Where the configuration comes from: a file, the IoT Edge runtime, or a developer's connection string.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;

use crate::hub::token::{ModuleKey, Signer};
use crate::options::Options;
use crate::service::CertificateSource;
use crate::workload::{Workload, WorkloadAddress};

/// The first of these that is there.
pub(crate) enum Source {
    /// `--twin FILE`.
    File(PathBuf),
    /// IoT Edge, by the workload API or by a connection string.
    Edge(EdgeIdentity),
}

/// Who this module is to the hub, and how it proves it.
#[derive(Clone)]
pub(crate) struct EdgeIdentity {
    /// `<hub>.azure-devices.net`; part of the user name and of the token's audience, never connected to.
    pub iothub: String,
    pub device: String,
    pub module: String,
    /// Where the hub is, and the name in its certificate.
    pub gateway: String,
    pub signer: Arc<dyn Signer>,
    pub certificates: Arc<dyn CertificateSource>,
    how: &'static str,
}

/// Why there is no configuration.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SourceError {
    #[error(
        "no configuration: give --twin FILE, or run as an IoT Edge module ({missing} not set), or set \
         EdgeHubConnectionString and EdgeModuleCACertificateFile"
    )]
    Nothing { missing: String },
    #[error("IOTEDGE_WORKLOADURI: {0}")]
    Workload(String),
    #[error("EdgeHubConnectionString: {0}")]
    ConnectionString(&'static str),
    #[error(
        "EdgeHubConnectionString is set, EdgeModuleCACertificateFile is not: name the edge device's CA file in it"
    )]
    NoCaFile,
}

impl Source {
    /// In the order `--twin`, `IOTEDGE_*`, connection string.
    pub fn find(options: &Options, variable: impl Fn(&str) -> Option<String>) -> Result<Self, SourceError> {
        if let Some(path) = &options.twin {
            return Ok(Self::File(path.clone()));
        }
        let variable = |name: &str| variable(name).filter(|value| !value.is_empty());
        let names = [
            "IOTEDGE_WORKLOADURI",
            "IOTEDGE_MODULEID",
            "IOTEDGE_MODULEGENERATIONID",
            "IOTEDGE_DEVICEID",
            "IOTEDGE_IOTHUBHOSTNAME",
            "IOTEDGE_GATEWAYHOSTNAME",
        ];
        if let [Some(uri), Some(module), Some(generation), Some(device), Some(iothub), Some(gateway)] =
            names.map(variable)
        {
            let address =
                uri.parse::<WorkloadAddress>().map_err(|error| SourceError::Workload(error.to_string()))?;
            let version = variable("IOTEDGE_APIVERSION");
            let workload = Arc::new(Workload::new(address, version, module.clone(), generation));
            return Ok(Self::Edge(EdgeIdentity {
                iothub,
                device,
                module,
                gateway,
                signer: workload.clone(),
                certificates: workload,
                how: "the IoT Edge hub (IOTEDGE_WORKLOADURI)",
            }));
        }
        if let Some(text) = variable("EdgeHubConnectionString") {
            let file = variable("EdgeModuleCACertificateFile").ok_or(SourceError::NoCaFile)?;
            return from_connection_string(&text, file.into()).map(Self::Edge);
        }
        let missing: Vec<&str> = names.into_iter().filter(|name| variable(name).is_none()).collect();
        Err(SourceError::Nothing { missing: missing.join(", ") })
    }

    fn edge(&self) -> Option<&EdgeIdentity> {
        match self {
            Self::File(_) => None,
            Self::Edge(edge) => Some(edge),
        }
    }

    pub fn device(&self) -> Option<&str> {
        self.edge().map(|edge| edge.device.as_str())
    }

    pub fn module(&self) -> Option<&str> {
        self.edge().map(|edge| edge.module.as_str())
    }

    pub fn iothub(&self) -> Option<&str> {
        self.edge().map(|edge| edge.iothub.as_str())
    }

    pub fn gateway_host(&self) -> Option<&str> {
        self.edge().map(|edge| edge.gateway.as_str())
    }

    pub fn certificates(&self) -> Option<Arc<dyn CertificateSource>> {
        self.edge().map(|edge| edge.certificates.clone())
    }
}

impl fmt::Display for Source {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(formatter, "the file {} (--twin)", path.display()),
            Self::Edge(edge) => {
                write!(formatter, "{} as {}/{} at {}", edge.how, edge.device, edge.module, edge.gateway)
            }
        }
    }
}

fn from_connection_string(text: &str, ca_file: PathBuf) -> Result<EdgeIdentity, SourceError> {
    let part = |wanted: &str| {
        // A key is base64 and may end in `=`: only the first one separates.
        let parts = text.split(';').filter_map(|part| part.split_once('='));
        let found = parts.into_iter().find(|(name, _)| name.trim().eq_ignore_ascii_case(wanted));
        found.map(|(_, value)| value.trim().to_owned()).filter(|value| !value.is_empty())
    };
    let need =
        |wanted: &str, missing: &'static str| part(wanted).ok_or(SourceError::ConnectionString(missing));
    let key = need("SharedAccessKey", "SharedAccessKey is missing")?;
    let key =
        BASE64.decode(key).map_err(|_| SourceError::ConnectionString("SharedAccessKey is not base64"))?;
    let identity = Arc::new(ModuleKey::new(key, ca_file));
    Ok(EdgeIdentity {
        iothub: need("HostName", "HostName is missing")?,
        device: need("DeviceId", "DeviceId is missing")?,
        module: need("ModuleId", "ModuleId is missing")?,
        gateway: need("GatewayHostName", "GatewayHostName is missing: name the edge device")?,
        signer: identity.clone(),
        certificates: identity,
        how: "the IoT Edge hub (EdgeHubConnectionString)",
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    const STRING: &str =
        "HostName=h.azure-devices.net;GatewayHostName=gw;DeviceId=d;ModuleId=m;SharedAccessKey=a2V5MQ==";

    fn find(twin: bool, variables: &[(&str, &str)]) -> Result<Source, SourceError> {
        let arguments: &[&str] = if twin { &["--twin", "a.json"] } else { &[] };
        let options =
            Options::parse_from_arguments("t", "1", arguments.iter().map(std::ffi::OsString::from)).unwrap();
        let variables: BTreeMap<_, _> = variables.iter().copied().collect();
        Source::find(&options, |name| variables.get(name).map(|value| (*value).to_owned()))
    }

    const EDGE: [(&str, &str); 6] = [
        ("IOTEDGE_WORKLOADURI", "unix:///run/w.sock"),
        ("IOTEDGE_MODULEID", "mod"),
        ("IOTEDGE_MODULEGENERATIONID", "1"),
        ("IOTEDGE_DEVICEID", "dev"),
        ("IOTEDGE_IOTHUBHOSTNAME", "h.azure-devices.net"),
        ("IOTEDGE_GATEWAYHOSTNAME", "edge-box"),
    ];

    #[test]
    fn a_file_comes_before_the_edge_and_the_edge_before_a_connection_string() {
        let mut all = EDGE.to_vec();
        all.extend([("EdgeHubConnectionString", STRING), ("EdgeModuleCACertificateFile", "ca.pem")]);
        assert!(matches!(find(true, &all), Ok(Source::File(_))));
        assert_eq!(find(false, &all).map_err(drop).unwrap().module(), Some("mod"));
        assert_eq!(find(false, &all[1..]).map_err(drop).unwrap().module(), Some("m"));
    }

    #[test]
    fn nothing_at_all_names_every_way_and_what_is_missing() {
        let error = find(false, &EDGE[..5]).map(drop).unwrap_err().to_string();
        for word in ["--twin FILE", "IOTEDGE_GATEWAYHOSTNAME not set", "EdgeHubConnectionString"] {
            assert!(error.contains(word), "{error}");
        }
        assert!(!error.contains('\n'));
    }

    #[test]
    fn a_connection_string_without_a_gateway_is_refused() {
        let text = STRING.replace("GatewayHostName=gw;", "");
        let error = find(false, &[("EdgeHubConnectionString", &text), ("EdgeModuleCACertificateFile", "x")])
            .map(drop)
            .unwrap_err();
        assert!(error.to_string().contains("GatewayHostName"), "{error}");
    }
}
