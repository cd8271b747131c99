//! A module of the manifest, with what was made for it.

use std::ffi::OsString;
use std::sync::{Arc, Mutex, PoisonError};

use crate::addresses::Address;
use crate::logs::Log;
use crate::manifest::{Module, is_placeholder};
use crate::process::{Launch, Pace, ProcessState, ProcessStatus, Supervised};
use crate::services::{self, Service};

pub(super) struct Running {
    pub spec: Module,
    pub address: Address,
    pub log: Arc<Log>,
    pub env: Vec<(String, String)>,
    /// It is started again as seldom as on a device, and gets nothing of this machine's.
    device_rules: bool,
    /// Ports of 127.0.0.1 that lead to it.
    pub forwarded: Mutex<Vec<u16>>,
    pub process: Mutex<Option<Supervised>>,
    /// Why it has no process, if it never gets one.
    pub absence: Option<ProcessState>,
}

impl Running {
    pub fn new(
        spec: Module,
        address: Address,
        log: Arc<Log>,
        env: Vec<(String, String)>,
        device_rules: bool,
    ) -> Self {
        let (forwarded, process) = Default::default();
        let absence = absence(&spec);
        Self { spec, address, log, env, device_rules, forwarded, process, absence }
    }

    /// Begins to watch over its process.
    pub fn begin(&self) {
        let process = Supervised::begin(self.launch(), Arc::clone(&self.log), self.spec.running);
        *self.process.lock().unwrap_or_else(PoisonError::into_inner) = Some(process);
    }

    /// What it does now.
    pub fn status(&self) -> ProcessStatus {
        let process = self.process.lock().unwrap_or_else(PoisonError::into_inner);
        match (process.as_ref(), &self.absence) {
            (Some(process), _) => process.status.borrow().clone(),
            (None, Some(absence)) => absence.clone().into(),
            (None, None) => ProcessState::Starting.into(),
        }
    }

    pub(super) fn launch(&self) -> Launch {
        let mut env: Vec<(OsString, OsString)> =
            self.env.iter().map(|(name, value)| (name.into(), value.into())).collect();
        env.push((services::PARENT.into(), std::process::id().to_string().into()));
        if !self.device_rules && matches!(services::find(&self.spec.service), Service::Binary(_)) {
            let of_session =
                services::SESSION.iter().filter(|name| !self.env.iter().any(|(own, _)| own == *name));
            env.extend(of_session.filter_map(|name| Some(((*name).into(), std::env::var_os(name)?))));
        }
        Launch {
            program: std::env::current_exe().unwrap_or_else(|_| "local-edge".into()),
            args: vec!["module".into(), self.spec.service.clone().into()],
            env,
            restart: self.spec.restart,
            pace: if self.device_rules { Pace::DEVICE } else { Pace::DESK },
            stop_timeout: self.spec.stop_timeout,
        }
    }
}

/// What is linked or lies beside is run, whatever its image is called. Else a placeholder says that the service is
/// built from sources that are here: that it was not is a failure, with what to do. An image from a registry may be
/// anybody's: fine on a device, and nothing that a process here could be.
pub(super) fn absence(spec: &Module) -> Option<ProcessState> {
    match services::find(&spec.service) {
        Service::Linked | Service::Binary(_) => None,
        Service::Missing
            if is_placeholder(&spec.image) && services::needs_building(&spec.service).is_none() =>
        {
            Some(ProcessState::Failed { error: services::missing(&spec.service) })
        }
        Service::Missing => Some(ProcessState::NotRunHere { image: Some(spec.image.clone()) }),
    }
}
