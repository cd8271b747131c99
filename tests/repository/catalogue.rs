use av_flow::catalogue::ENDPOINTS;
use av_flow::config::OptionSpec;

use super::*;

/// What two rows must have in common; the line of docs/twin.md is the owner's.
fn facts(option: &OptionSpec) -> OptionSpec {
    OptionSpec { meaning: "", ..*option }
}

#[test]
fn the_catalogue_knows_every_endpoint_that_a_module_has_with_the_same_options() {
    let mut endpoints = 0;
    for supports in modules() {
        for spec in supports.endpoints() {
            for scheme in spec.schemes {
                let mut entries = ENDPOINTS.iter().map(|entry| entry.spec);
                let entry = entries
                    .find(|entry| entry.role == spec.role && entry.schemes.contains(scheme))
                    .unwrap_or_else(|| {
                        panic!("{}: {:?} with {scheme} is missing", supports.module, spec.role)
                    });
                let own = spec.options.iter().map(facts).collect::<Vec<_>>();
                let known = entry.options.iter().map(facts).collect::<Vec<_>>();
                assert_eq!(own, known, "{}: {:?} with {scheme}", supports.module, spec.role);
                endpoints += 1;
            }
        }
    }
    assert!(endpoints >= 13, "{endpoints}");
}

#[test]
fn every_module_has_what_the_catalogue_says_of_it() {
    for entry in ENDPOINTS {
        let Some(supports) = module(entry.module) else { continue };
        for scheme in entry.spec.schemes {
            assert!(
                supports.endpoint(entry.spec.role, *scheme).is_some(),
                "{} has no {:?} with {scheme}",
                entry.module,
                entry.spec.role
            );
        }
    }
}
