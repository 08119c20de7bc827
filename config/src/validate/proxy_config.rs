//! ProxyConfig, wherever it is written: as an object, in MeshConfig, and as an annotation of a Pod.

use super::check::Check;
use crate::finding::code;
use crate::istio::ProxyConfig;
use crate::kubernetes::Pod;
use crate::mesh::{self, INTERCEPTION_MODE_ANNOTATION, InterceptionMode, PROXY_CONFIG_ANNOTATION};

/// Prefix of the environment variables that become node metadata.
const METADATA_PREFIX: &str = "ISTIO_META_";

/// Checks a ProxyConfig.
pub(super) fn check(check: &mut Check<'_>, spec: &ProxyConfig) {
    check_concurrency(check, "spec.concurrency", spec.concurrency);
    if spec.selector.as_ref().is_some_and(|selector| selector.match_labels.is_empty()) {
        let what =
            "a selector without labels selects no workload, in Istio too, so that this object has no effect";
        let remedy = "remove `selector` to mean the whole namespace, or add `matchLabels`";
        check.warning(code::INEFFECTIVE_VALUE, "spec.selector", what, remedy);
    }
    if spec.image.is_some() {
        let what = "the image is for the injector: a proxy that runs cannot change its own";
        check.warning(code::FIELD_NOT_HONOURED, "spec.image", what, "leave it to the injector");
    }
    for name in spec.environment_variables.keys().filter(|name| !name.starts_with(METADATA_PREFIX)) {
        let what = "weft reads no such variable from a ProxyConfig: it has no effect";
        let remedy = "set it in the container's own environment, or name it ISTIO_META_...";
        check.warning(code::FIELD_NOT_HONOURED, &format!("spec.environmentVariables[{name}]"), what, remedy);
    }
}

/// Checks a number of workers.
pub(super) fn check_concurrency(check: &mut Check<'_>, path: &str, concurrency: Option<i32>) {
    if let Some(negative) = concurrency.filter(|concurrency| *concurrency < 0) {
        let what = format!("{negative} is not a number of workers");
        check.bad(path, what, "write 1 or more, 0 for one per core, or remove it");
    }
}

/// Checks the settings that a Pod is annotated with. They cannot refuse the Pod, which others need to know.
pub(super) fn check_pod(check: &mut Check<'_>, pod: &Pod) {
    if let Some(mode) = pod.interception_mode().filter(|it| InterceptionMode::of_name(it).is_none()) {
        let path = format!("metadata.annotations[{INTERCEPTION_MODE_ANNOTATION}]");
        let what = format!("`{mode}` is no way of interception, so that the annotation has no effect");
        check.warning(code::INEFFECTIVE_VALUE, &path, what, "write REDIRECT, TPROXY or NONE");
    }
    let Some(text) = pod.proxy_config() else { return };
    let path = format!("metadata.annotations[{PROXY_CONFIG_ANNOTATION}]");
    match mesh::read_proxy_config(text) {
        Err(why) => {
            let what = format!("the annotation is no ProxyConfig, so that it has no effect: {why}");
            check.warning(code::INEFFECTIVE_VALUE, &path, what, "correct it");
        }
        Ok(read) => {
            for what in read.unknown {
                check.warning(code::UNKNOWN_FIELD, &path, what, "correct or remove it");
            }
            for field in read.not_honoured {
                let what = format!("weft does not honour `{field}` yet: it has no effect");
                let remedy = "remove it, or keep Istio's own proxy where the mesh relies on it";
                check.warning(code::FIELD_NOT_HONOURED, &path, what, remedy);
            }
        }
    }
}
