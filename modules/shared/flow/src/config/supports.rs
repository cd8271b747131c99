//! What a module can be asked for: the endpoints, top-level properties and rules that its service named.

use super::error::ConfigError;
use super::options::OptionSpec;
use super::role::Role;
use super::scheme::Scheme;
use super::types::FlowConfig;
use super::url::UrlError;
use crate::catalogue;
use crate::registry::{EndpointSpec, InputSpec, OutputSpec};

/// Refuses a whole flow whose parts are good: see [`ConfigError::rule`].
pub type Rule = fn(&FlowConfig) -> Result<(), ConfigError>;

/// The row of one module: which documents it understands.
#[derive(Clone, Default)]
pub struct Supports {
    /// The module's service name, for error texts.
    pub module: &'static str,
    /// Inputs. Of two that answer to one URL the first counts.
    pub inputs: Vec<InputSpec>,
    /// Outputs. Of two that answer to one URL the first counts.
    pub outputs: Vec<OutputSpec>,
    /// Top-level properties that only this service has.
    pub properties: Vec<OptionSpec>,
    /// What whole flows must be.
    pub rules: Vec<Rule>,
}

impl Supports {
    /// All endpoints.
    pub fn endpoints(&self) -> impl Iterator<Item = EndpointSpec> + '_ {
        let outputs = self.outputs.iter().map(|output| output.spec);
        self.inputs.iter().map(|input| input.spec).chain(outputs)
    }

    /// The schemes of one role; none where the module lacks it.
    pub fn schemes(&self, role: Role) -> Vec<Scheme> {
        let mut schemes = Vec::new();
        for scheme in self.endpoints().filter(|spec| spec.role == role).flat_map(|spec| spec.schemes) {
            if !schemes.contains(scheme) {
                schemes.push(*scheme);
            }
        }
        schemes
    }

    /// The endpoint that answers to a URL.
    pub fn endpoint(&self, role: Role, scheme: Scheme) -> Option<EndpointSpec> {
        self.endpoints().find(|spec| spec.role == role && spec.schemes.contains(&scheme))
    }

    /// Every endpoint that there is: this module's, and then the project's.
    pub(super) fn known(&self) -> impl Iterator<Item = EndpointSpec> + '_ {
        self.endpoints().chain(catalogue::ENDPOINTS.iter().map(|entry| entry.spec))
    }

    /// The top-level property of that name which only this service has.
    pub(super) fn property(&self, name: &str) -> Option<&OptionSpec> {
        self.properties.iter().find(|property| property.name == name)
    }

    /// The first option of that name, of whatever module.
    pub(super) fn option(&self, name: &str) -> Option<&'static OptionSpec> {
        self.known().flat_map(|spec| spec.all_options()).find(|option| option.name == name)
    }

    /// The same, of an endpoint of that role where one has it.
    pub(super) fn option_near(&self, role: Role, name: &str) -> Option<&'static OptionSpec> {
        let near = self.known().filter(|spec| spec.role == role).flat_map(|spec| spec.all_options());
        near.into_iter().find(|option| option.name == name).or_else(|| self.option(name))
    }

    /// The scheme of a URL, in any case.
    ///
    /// # Errors
    /// [`UrlError::NoScheme`] or [`UrlError::UnknownScheme`].
    pub fn scheme_of(&self, url: &str) -> Result<Scheme, UrlError> {
        let (name, _) = url.split_once("://").ok_or(UrlError::NoScheme)?;
        let own = self.endpoints().flat_map(|spec| spec.schemes);
        let mut all = own.chain(catalogue::SCHEMES);
        all.find(|scheme| scheme.name.eq_ignore_ascii_case(name)).copied().ok_or_else(|| {
            let mut names = catalogue::SCHEMES.iter().map(|scheme| scheme.name).collect::<Vec<_>>();
            let foreign = |scheme: &&Scheme| !catalogue::SCHEMES.contains(scheme);
            let own = self.endpoints().flat_map(|spec| spec.schemes).filter(foreign);
            names.extend(own.map(|scheme| scheme.name));
            let last = names.pop().unwrap_or_default();
            UrlError::UnknownScheme { known: format!("{} and {last}", names.join(", ")) }
        })
    }
}
