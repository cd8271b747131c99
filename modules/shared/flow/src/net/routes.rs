//! Where the paths of one listener lead.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

/// Which paths a route stands for. Paths have no leading or trailing `/`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Place {
    /// Exactly this path.
    Exact(String),
    /// Any one name below this path: what a `*` stands for.
    Pattern(String),
    /// This path and everything below it.
    Prefix(String),
}

impl Place {
    /// The place of a configured path: its last segment may be `*`.
    pub fn of(path: &str) -> Self {
        match path.strip_suffix('*') {
            Some("") => Self::Pattern(String::new()),
            Some(above) if above.ends_with('/') => Self::Pattern(above.trim_end_matches('/').to_owned()),
            _ => Self::Exact(path.to_owned()),
        }
    }

    /// The path as it was given, without the `*`.
    pub fn path(&self) -> &str {
        match self {
            Self::Exact(path) | Self::Pattern(path) | Self::Prefix(path) => path,
        }
    }
}

/// A route that was found, and the part of the path that it left open.
#[derive(Debug)]
pub struct Found<T> {
    /// What stands there.
    pub route: Arc<T>,
    /// The name that a pattern matched, or what follows a prefix; `None` for an exact path.
    pub rest: Option<String>,
}

/// The routes of one kind of one listener. Exact paths win over patterns, and patterns over prefixes, of which the
/// longest wins.
#[derive(Debug)]
pub struct Routes<T>(Arc<RwLock<HashMap<Place, Stack<T>>>>);

impl<T> Default for Routes<T> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<T> Routes<T> {
    /// Opens a route to a place that is configured, while the answer lives. It stands before those of instances, and
    /// before older ones as long as both live.
    pub fn add(&self, place: Place, route: Arc<T>) -> RouteGuard<T> {
        self.insert(place, Standing { configured: true, route })
    }

    /// The same for an instance of a pattern: what is configured at that place stands before it.
    pub fn add_of_instance(&self, place: Place, route: Arc<T>) -> RouteGuard<T> {
        self.insert(place, Standing { configured: false, route })
    }

    fn insert(&self, place: Place, standing: Standing<T>) -> RouteGuard<T> {
        let route = standing.route.clone();
        let mut routes = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let stack = &mut routes.entry(place.clone()).or_insert_with(|| Stack(Vec::with_capacity(1))).0;
        let above = |present: &Standing<T>| present.configured && !standing.configured;
        let at = stack.iter().position(above).unwrap_or(stack.len());
        stack.insert(at, standing);
        drop(routes);
        RouteGuard { routes: self.0.clone(), place, route }
    }

    /// What stands at exactly this path.
    pub fn exact(&self, path: &str) -> Option<Arc<T>> {
        self.read().get(&Place::Exact(path.to_owned()))?.first().cloned()
    }

    /// Where a path leads.
    pub fn find(&self, path: &str) -> Option<Found<T>> {
        let routes = self.read();
        let standing = |place: &Place| routes.get(place)?.first();
        if let Some(route) = standing(&Place::Exact(path.to_owned())) {
            return Some(Found { route: route.clone(), rest: None });
        }
        let (above, name) = path.rsplit_once('/').unwrap_or(("", path));
        if let Some(route) = standing(&Place::Pattern(above.to_owned())) {
            return Some(Found { route: route.clone(), rest: Some(name.to_owned()) });
        }
        let mut borders =
            std::iter::once(path.len()).chain(path.rmatch_indices('/').map(|(border, _)| border));
        borders.find_map(|border| {
            let (prefix, rest) = path.split_at_checked(border)?;
            let route = standing(&Place::Prefix(prefix.to_owned()))?.clone();
            Some(Found { route, rest: Some(rest.trim_start_matches('/').to_owned()) })
        })
    }

    /// All routes whose place passes.
    pub fn all(&self, passes: impl Fn(&Place) -> bool) -> Vec<Arc<T>> {
        let routes = self.read();
        let passing = routes.iter().filter(|(place, _)| passes(place));
        passing.filter_map(|(_, stack)| stack.first().cloned()).collect()
    }

    fn read(&self) -> RwLockReadGuard<'_, HashMap<Place, Stack<T>>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }
}

/// All routes to one place: those of instances, then those that are configured, each newest last. The last one is
/// taken.
#[derive(Debug)]
struct Stack<T>(Vec<Standing<T>>);

#[derive(Debug)]
struct Standing<T> {
    configured: bool,
    route: Arc<T>,
}

impl<T> Stack<T> {
    /// The one that is taken.
    fn first(&self) -> Option<&Arc<T>> {
        self.0.last().map(|standing| &standing.route)
    }
}

/// Takes a route off its listener again when it is dropped.
#[derive(Debug)]
pub struct RouteGuard<T> {
    routes: Arc<RwLock<HashMap<Place, Stack<T>>>>,
    place: Place,
    route: Arc<T>,
}

impl<T> Drop for RouteGuard<T> {
    fn drop(&mut self) {
        let mut routes = self.routes.write().unwrap_or_else(PoisonError::into_inner);
        // Others may stand there too.
        if let Some(Stack(stack)) = routes.get_mut(&self.place) {
            stack.retain(|present| !Arc::ptr_eq(&present.route, &self.route));
            if stack.is_empty() {
                routes.remove(&self.place);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(routes: &Routes<&'static str>, path: &str) -> Option<(&'static str, Option<String>)> {
        routes.find(path).map(|found| (*found.route, found.rest))
    }

    #[test]
    fn exact_paths_win_over_patterns_and_patterns_over_the_longest_prefix() {
        let routes = Routes::default();
        let place = |place, name| routes.add(place, Arc::new(name));
        let _guards = [
            place(Place::of("live/cam"), "exact"),
            place(Place::of("live/*"), "pattern"),
            place(Place::Prefix("live".into()), "short"),
            place(Place::Prefix("live/hls".into()), "long"),
        ];
        assert_eq!(found(&routes, "live/cam"), Some(("exact", None)));
        assert_eq!(found(&routes, "live/other"), Some(("pattern", Some("other".into()))));
        assert_eq!(found(&routes, "live/hls/index.m3u8"), Some(("long", Some("index.m3u8".into()))));
        assert_eq!(found(&routes, "live/x/y/z"), Some(("short", Some("x/y/z".into()))));
        assert_eq!(found(&routes, "live"), Some(("short", Some(String::new()))));
    }

    #[test]
    fn a_prefix_ends_at_a_segment_and_a_pattern_is_one_segment() {
        let routes = Routes::default();
        let _prefix = routes.add(Place::Prefix("live/a".into()), Arc::new("prefix"));
        let _pattern = routes.add(Place::of("cams/*"), Arc::new("pattern"));
        assert_eq!(found(&routes, "live/ab"), None);
        assert_eq!(found(&routes, "cams/a/b"), None);
        assert_eq!(found(&routes, "cams"), None);
    }

    #[test]
    fn a_star_alone_matches_any_single_name() {
        let routes = Routes::default();
        let _pattern = routes.add(Place::of("*"), Arc::new("pattern"));
        assert_eq!(found(&routes, "cam"), Some(("pattern", Some("cam".into()))));
        assert_eq!(found(&routes, "a/b"), None);
    }

    #[test]
    fn an_older_guard_leaves_the_newer_route_alone() {
        let routes = Routes::default();
        let old = routes.add(Place::of("live/a"), Arc::new("old"));
        let new = routes.add(Place::of("live/a"), Arc::new("new"));
        drop(old);
        assert_eq!(found(&routes, "live/a"), Some(("new", None)));
        drop(new);
        assert_eq!(found(&routes, "live/a"), None);
    }

    #[test]
    fn an_instance_never_stands_before_a_configured_route_nor_takes_it_along() {
        let routes = Routes::default();
        let add = |name| routes.add(Place::of("live/a"), Arc::new(name));
        let add_of_instance = |name| routes.add_of_instance(Place::of("live/a"), Arc::new(name));
        let configured = add("configured");
        let instance = add_of_instance("instance");
        assert_eq!(found(&routes, "live/a"), Some(("configured", None)));
        assert_eq!(routes.all(|_| true).iter().map(|route| **route).collect::<Vec<_>>(), ["configured"]);
        drop(instance);
        assert_eq!(found(&routes, "live/a"), Some(("configured", None)));
        let instance = add_of_instance("instance");
        drop(configured);
        assert_eq!(found(&routes, "live/a"), Some(("instance", None)));
        let _configured = add("configured later");
        assert_eq!(found(&routes, "live/a"), Some(("configured later", None)));
        drop(instance);
        assert_eq!(routes.exact("live/a").as_deref(), Some(&"configured later"));
    }
}
