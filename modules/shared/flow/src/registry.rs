//! Endpoints as a service names them: a protocol implements [`Input`] or [`Output`] for what it reads of a document,
//! and everything else (configuration, conflicts, diff, supervisor, reports, schema) knows endpoints by that alone.

use std::any::Any;
use std::fmt;
use std::sync::Arc;

use futures_util::future::BoxFuture;

use crate::config::{Claim, ConfigError, OptionSpec, Options, Role, Scheme, shared};
use crate::endpoint::{InputContext, OutputContext};

/// Which properties of a document an endpoint answers to.
#[derive(Clone, Copy, Debug)]
pub struct EndpointSpec {
    /// The property whose URL makes it.
    pub role: Role,
    /// With which schemes.
    pub schemes: &'static [Scheme],
    /// Options of its own. Those of [`shared`] come by themselves.
    pub options: &'static [OptionSpec],
}

impl EndpointSpec {
    /// Every option, those that are read for all endpoints first.
    pub fn all_options(&self) -> impl Iterator<Item = &'static OptionSpec> + use<> {
        shared(self.role).iter().chain(self.options)
    }
}

/// What one input of one flow is asked to be, read and with every default filled in.
///
/// Two inputs that compare equal are the same: one that runs goes on when the document that it came from changes. So
/// a value holds everything that [`run`](Self::run) goes by.
pub trait Input: Clone + fmt::Debug + PartialEq + Send + Sync + 'static {
    /// What it answers to.
    const SPEC: EndpointSpec;

    /// Reads it. Names, types and ranges of `options` have been checked.
    ///
    /// # Errors
    /// What only shows when values are seen together, and whatever is wrong with the URL.
    fn read(options: &Options<'_>) -> Result<Self, ConfigError>;

    /// Addresses that no other flow may have while this one runs.
    fn claims(&self) -> Vec<Claim> {
        Vec::new()
    }

    /// Runs until `context.cancel` fires, and reports through `context.status`. On a pattern there is
    /// `context.instances`, and frames go to the stream of an instance.
    fn run(self, context: InputContext) -> impl Future<Output = ()> + Send + 'static;
}

/// What one output of one flow is asked to be: see [`Input`].
pub trait Output: Clone + fmt::Debug + PartialEq + Send + Sync + 'static {
    /// What it answers to.
    const SPEC: EndpointSpec;

    /// Reads it. Names, types and ranges of `options` have been checked.
    ///
    /// # Errors
    /// What only shows when values are seen together, and whatever is wrong with the URL.
    fn read(options: &Options<'_>) -> Result<Self, ConfigError>;

    /// Addresses that no other flow may have while this one runs.
    fn claims(&self) -> Vec<Claim> {
        Vec::new()
    }

    /// The URL for people: no user info, no query, no secret. `public_host` stands for a wildcard address.
    fn url(&self, public_host: Option<&str>) -> String;

    /// The output of one instance of a pattern: `name` stands where the document says `*` or `{match}`.
    fn instance(&self, name: &str) -> Self;

    /// Runs until `context.cancel` fires, and reports through `context.status`. What has to be finished then is
    /// finished before it ends: whatever takes its place starts after that.
    fn run(self, context: OutputContext) -> impl Future<Output = ()> + Send + 'static;
}

/// An input that a service has: `InputSpec::of::<TheConfiguration>()`.
#[derive(Clone, Copy)]
pub struct InputSpec {
    pub(crate) spec: EndpointSpec,
    pub(crate) read: fn(&Options<'_>) -> Result<AnyInput, ConfigError>,
}

impl InputSpec {
    /// The input that is configured by an `I`.
    pub const fn of<I: Input>() -> Self {
        assert!(I::SPEC.role.is_input(), "an input listens, pulls or reads");
        Self { spec: I::SPEC, read: |options| I::read(options).map(|input| AnyInput(Arc::new(input))) }
    }
}

/// An output that a service has: `OutputSpec::of::<TheConfiguration>()`.
#[derive(Clone, Copy)]
pub struct OutputSpec {
    pub(crate) spec: EndpointSpec,
    pub(crate) read: fn(&Options<'_>) -> Result<AnyOutput, ConfigError>,
}

impl OutputSpec {
    /// The output that is configured by an `O`.
    pub const fn of<O: Output>() -> Self {
        assert!(!O::SPEC.role.is_input(), "an output serves, pushes, stores or renders");
        Self { spec: O::SPEC, read: |options| O::read(options).map(|output| AnyOutput(Arc::new(output))) }
    }
}

/// An [`Input`] of any type.
#[derive(Clone)]
pub struct AnyInput(Arc<dyn ErasedInput>);

/// An [`Output`] of any type.
#[derive(Clone)]
pub struct AnyOutput(Arc<dyn ErasedOutput>);

trait ErasedInput: Any + fmt::Debug + Send + Sync {
    fn equals(&self, other: &dyn Any) -> bool;
    fn role(&self) -> Role;
    fn claims(&self) -> Vec<Claim>;
    fn run(&self, context: InputContext) -> BoxFuture<'static, ()>;
}

trait ErasedOutput: Any + fmt::Debug + Send + Sync {
    fn equals(&self, other: &dyn Any) -> bool;
    fn role(&self) -> Role;
    fn claims(&self) -> Vec<Claim>;
    fn url(&self, public_host: Option<&str>) -> String;
    fn instance(&self, name: &str) -> AnyOutput;
    fn run(&self, context: OutputContext) -> BoxFuture<'static, ()>;
}

impl<I: Input> ErasedInput for I {
    fn equals(&self, other: &dyn Any) -> bool {
        other.downcast_ref::<I>() == Some(self)
    }

    fn role(&self) -> Role {
        I::SPEC.role
    }

    fn claims(&self) -> Vec<Claim> {
        Input::claims(self)
    }

    fn run(&self, context: InputContext) -> BoxFuture<'static, ()> {
        Box::pin(Input::run(self.clone(), context))
    }
}

impl<O: Output> ErasedOutput for O {
    fn equals(&self, other: &dyn Any) -> bool {
        other.downcast_ref::<O>() == Some(self)
    }

    fn role(&self) -> Role {
        O::SPEC.role
    }

    fn claims(&self) -> Vec<Claim> {
        Output::claims(self)
    }

    fn url(&self, public_host: Option<&str>) -> String {
        Output::url(self, public_host)
    }

    fn instance(&self, name: &str) -> AnyOutput {
        AnyOutput(Arc::new(Output::instance(self, name)))
    }

    fn run(&self, context: OutputContext) -> BoxFuture<'static, ()> {
        Box::pin(Output::run(self.clone(), context))
    }
}

impl AnyInput {
    /// What it is to its flow.
    pub fn role(&self) -> Role {
        self.0.role()
    }

    /// What it was read to, where that is an `I`.
    pub fn get<I: Input>(&self) -> Option<&I> {
        (&*self.0 as &dyn Any).downcast_ref()
    }

    pub(crate) fn claims(&self) -> Vec<Claim> {
        self.0.claims()
    }

    pub(crate) fn run(&self, context: InputContext) -> BoxFuture<'static, ()> {
        self.0.run(context)
    }
}

impl AnyOutput {
    /// What it is to its flow.
    pub fn role(&self) -> Role {
        self.0.role()
    }

    /// What it was read to, where that is an `O`.
    pub fn get<O: Output>(&self) -> Option<&O> {
        (&*self.0 as &dyn Any).downcast_ref()
    }

    pub(crate) fn claims(&self) -> Vec<Claim> {
        self.0.claims()
    }

    pub(crate) fn url(&self, public_host: Option<&str>) -> String {
        self.0.url(public_host)
    }

    pub(crate) fn instance(&self, name: &str) -> Self {
        self.0.instance(name)
    }

    pub(crate) fn run(&self, context: OutputContext) -> BoxFuture<'static, ()> {
        self.0.run(context)
    }
}

impl PartialEq for AnyInput {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || self.0.equals(&*other.0)
    }
}

impl PartialEq for AnyOutput {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || self.0.equals(&*other.0)
    }
}

impl fmt::Debug for AnyInput {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for AnyOutput {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
