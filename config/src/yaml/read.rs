//! A file's text to the objects in it.

mod told;

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::de::DeserializeOwned;

use super::build::build;
use super::guard::Guard;
use super::identity::{self, Names, TypeMeta};
use super::kinds::{Kind, Recognized, Versioned, recognize};
use super::limits::Limits;
use super::lines::FieldLines;
use super::mesh_map::{self, MeshMap};
use super::path::Path;
use super::problem::{Problem, Problems, Room};
use super::split::{DocumentText, documents};
use super::tree::{Node, Value};
use super::typed::{self, Unknown};
use crate::finding::{Finding, Untold, code};
use crate::istio::{ServiceEntry, WorkloadEntry};
use crate::kubernetes::{
    EXCLUDE_INBOUND_PORTS_ANNOTATION, INCLUDE_INBOUND_PORTS_ANNOTATION, Pod, PodAnnotations, Secret,
    TRAFFIC_DISTRIBUTION_ANNOTATION,
};
use crate::mesh::{INTERCEPTION_MODE_ANNOTATION, PROXY_CONFIG_ANNOTATION};
use crate::objects::{AnyObject, Object, Source};
use crate::origin::{ObjectRef, Place};
pub(crate) use told::bytes_refused;

/// What every object takes besides what it says: who it is, where, and that it is kept.
const OBJECT_BYTES: usize = 1024;

/// What a file says.
#[derive(Debug, Default)]
pub struct FileRead {
    /// The objects it names, in order.
    pub objects: Vec<ObjectRead>,
    /// ConfigMaps that hold MeshConfig, in order.
    pub mesh_maps: Vec<MeshMap>,
    /// What there is to say about no one of them.
    pub findings: Vec<Finding>,
    /// Documents that hold something, but do not tell which object they are, or pretend to be of a kind that there is
    /// not. While there are any, an object that is missing from the text may be meant by one of them.
    pub unidentified: usize,
    /// What is not told for want of room.
    pub(crate) untold: Untold,
}

/// One object that a file names.
#[derive(Debug)]
pub struct ObjectRead {
    /// Which one.
    pub object: Arc<ObjectRef>,
    /// Where it begins.
    pub place: Place,
    /// What it says; `None` when that could not be read, which the findings tell.
    pub value: Option<AnyObject>,
    /// Bytes of memory that takes, as far as they are known.
    pub bytes: usize,
    /// What is wrong with it.
    pub findings: Vec<Finding>,
    /// What it is to guard; what it says is then not given up lightly.
    pub guard: Option<Guard>,
}

/// Reads the objects of `text`, which is all that the file `file` holds.
pub fn read_file(file: &Arc<str>, text: &str, limits: &Limits) -> FileRead {
    let within = Within {
        objects: limits.objects_bytes_total_max,
        findings: limits.findings_bytes_total_max,
        holds: &|_| false,
    };
    read_file_within(file, text, limits, within)
}

/// What a file may take of the memory: what other files have left.
pub(crate) struct Within<'w> {
    /// Bytes of its objects.
    pub(crate) objects: usize,
    /// Bytes of what there is to say, with the objects that are refused.
    pub(crate) findings: usize,
    /// Whether a version of an object holds; that it is refused now is not forgotten then.
    pub(crate) holds: &'w dyn Fn(&Arc<ObjectRef>) -> bool,
}

/// The same, while it may take so much.
pub(crate) fn read_file_within(file: &Arc<str>, text: &str, limits: &Limits, within: Within<'_>) -> FileRead {
    let mut reader = FileReader {
        file: file.clone(),
        limits: *limits,
        within,
        names: Names::default(),
        skipped: BTreeMap::new(),
        told: 0,
        untold: None,
        read: FileRead::default(),
    };
    if text.len() > limits.file_bytes_max {
        reader.past_limit(1, "file_bytes_max", limits.file_bytes_max);
        return reader.read;
    }
    for (number, document) in documents(text).enumerate() {
        if number >= limits.file_documents_max {
            reader.past_limit(document.line, "file_documents_max", limits.file_documents_max);
            break;
        }
        reader.document(&document);
    }
    reader.note_skipped();
    reader.count_untold();
    reader.read
}

struct FileReader<'w> {
    file: Arc<str>,
    limits: Limits,
    /// What is left of that.
    within: Within<'w>,
    names: Names,
    /// How many objects of which version and kind were skipped, and the line of the first.
    skipped: BTreeMap<(String, String), (usize, u32)>,
    /// Problems told so far.
    told: usize,
    /// How many documents are none of which nothing is told, and the line of the first.
    untold: Option<(usize, u32)>,
    read: FileRead,
}

impl FileReader<'_> {
    fn document(&mut self, document: &DocumentText<'_>) {
        match build(document, &self.limits) {
            Ok(built) => {
                if let Some(root) = built.root.filter(|root| !root.is_null()) {
                    self.root(&root, built.problems);
                }
            }
            Err(broken) => match broken.head {
                Some(head) => self.broken(&head, broken.problem, document.text),
                None => self.unidentified(broken.problem),
            },
        }
    }

    /// A document that could not be read to its end, of which `head` was.
    fn broken(&mut self, head: &Node<'_>, problem: Problem, text: &str) {
        // Behind the defect, another object may stand without a marker before it.
        let is_one = ["apiVersion:", "kind:"]
            .into_iter()
            .all(|field| text.lines().filter(|line| line.starts_with(field)).count() < 2);
        let Some(meta) = identity::type_meta(head, None).ok().filter(|_| is_one) else {
            return self.unidentified(problem);
        };
        match recognize(meta.api_version, meta.kind) {
            Recognized::Read(kind) | Recognized::Refused { is: Some(Versioned::Read(kind)), .. } => {
                match identity::object_ref(head, kind, meta.kind, &mut self.names) {
                    Ok(object) => {
                        let guard = Guard::of_broken(kind, head, text);
                        let mut problems = Problems::new(self.limits.document_problems_max);
                        problems.push(problem);
                        self.push(head, Arc::new(object), None, guard, problems);
                    }
                    Err(_) => self.unidentified(problem),
                }
            }
            Recognized::Skipped if !is_list(&meta, head) => {
                match mesh_map::broken(&meta, head, &problem, &mut self.names) {
                    Some(map) => self.read.mesh_maps.push(map),
                    None => self.skip(&meta, head.line),
                }
            }
            _ => self.unidentified(problem),
        }
    }

    fn root(&mut self, root: &Node<'_>, problems: Problems) {
        if !matches!(root.value, Value::Mapping(_)) {
            return self.unidentified(Problem {
                line: root.line,
                path: String::new(),
                code: code::NO_IDENTITY,
                what: "the document is not an object: it is not a mapping".to_owned(),
                remedy: "write `apiVersion`, `kind` and `metadata`, or move it out of this directory"
                    .to_owned(),
            });
        }
        match identity::type_meta(root, None) {
            Ok(meta) if is_list(&meta, root) => self.list(&meta, root, problems),
            Ok(meta) => self.object(&meta, root, problems),
            Err(problem) => self.unidentified(*problem),
        }
    }

    /// `kind: List` as `kubectl` writes it, or the list of one kind as the API server does.
    fn list(&mut self, list: &TypeMeta<'_>, root: &Node<'_>, problems: Problems) {
        let Some(Node { value: Value::Sequence(items), .. }) = root.get("items") else { return };
        let item_kind = list.kind.strip_suffix("List").unwrap_or_default();
        let default = TypeMeta { api_version: list.api_version, kind: item_kind };
        let default = (!item_kind.is_empty()).then_some(&default);
        if problems.untold() > 0 {
            // It is not known which items they are in.
            problems
                .into_told(1, "document_problems_max")
                .into_iter()
                .for_each(|problem| self.unidentified(problem));
            return;
        }
        for (index, item) in items.iter().enumerate() {
            if self.read.objects.len() >= self.limits.file_documents_max {
                return self.past_limit(item.line, "file_documents_max", self.limits.file_documents_max);
            }
            let mut inside = problems.fresh();
            let of_item = problems.told().iter().filter_map(|problem| within_item(problem, index));
            of_item.for_each(|problem| inside.push(problem));
            match identity::type_meta(item, default) {
                Ok(meta) => self.object(&meta, item, inside),
                Err(problem) => self.unidentified(*problem),
            }
        }
        for problem in problems.told().iter().filter(|problem| !problem.path.starts_with("items[")) {
            self.unidentified(problem.clone());
        }
    }

    fn object(&mut self, meta: &TypeMeta<'_>, root: &Node<'_>, mut problems: Problems) {
        // Of a field that is written twice it is not known which one was meant.
        const IDENTITY: [&str; 5] = ["apiVersion", "kind", "metadata", "metadata.name", "metadata.namespace"];
        let of_identity = |problem: &&Problem| IDENTITY.contains(&problem.path.as_str());
        if let Some(problem) = problems.told().iter().find(of_identity) {
            let mut problem = problem.clone();
            if problem.path == "apiVersion" || problem.path == "kind" {
                problem.remedy = "separate two objects by a line `---`, or keep one of the two".to_owned();
            }
            return self.unidentified(problem);
        }
        match recognize(meta.api_version, meta.kind) {
            Recognized::Read(kind) => match identity::object_ref(root, kind, meta.kind, &mut self.names) {
                Ok(object) => {
                    let object = Arc::new(object);
                    let mut room = Room::new(&self.limits, self.within.objects);
                    let value = self.typed(kind, root, object.clone(), &mut problems, &mut room);
                    let value = value.map(|value| (value, room.taken()));
                    self.push(root, object, value, Guard::of(kind, root), problems);
                }
                Err(problem) => self.unidentified(*problem),
            },
            Recognized::NotHonoured => {
                let object = identity::object_ref(root, Kind::VirtualService, meta.kind, &mut self.names);
                self.not_honoured(root.line, object.ok());
            }
            Recognized::Skipped => match mesh_map::mesh_map(meta, root, &problems, &mut self.names) {
                Some(map) => self.read.mesh_maps.push(map),
                None => self.skip(meta, root.line),
            },
            Recognized::Refused { is, code, what, remedy } => {
                let field = if is.is_some() { "apiVersion" } else { "kind" };
                let line = root.entry(field).map_or(root.line, |entry| entry.line);
                let path = if is.is_some() { field.to_owned() } else { String::new() };
                self.refused(meta, root, is, Problem { line, path, code, what, remedy });
            }
        }
    }

    /// A document of no kind that there is. One that is of a known kind but for its version is refused alone: it is known
    /// which object it is, and so what it was to guard.
    fn refused(&mut self, meta: &TypeMeta<'_>, root: &Node<'_>, is: Option<Versioned>, problem: Problem) {
        let kind = match is {
            Some(Versioned::Read(kind)) => kind,
            Some(Versioned::NotHonoured) => Kind::VirtualService,
            None => return self.unidentified(problem),
        };
        let object = match identity::object_ref(root, kind, meta.kind, &mut self.names) {
            Ok(object) => object,
            Err(problem) => return self.unidentified(*problem),
        };
        if is == Some(Versioned::NotHonoured) {
            return self.tell(problem.into_error(&self.file, Some(object)));
        }
        let mut problems = Problems::new(self.limits.document_problems_max);
        problems.push(problem);
        self.push(root, Arc::new(object), None, Guard::of(kind, root), problems);
    }

    fn typed(
        &mut self,
        kind: Kind,
        root: &Node<'_>,
        object: Arc<ObjectRef>,
        problems: &mut Problems,
        room: &mut Room,
    ) -> Option<AnyObject> {
        let fields = kind.is_istio().then(|| Arc::new(FieldLines::of(root)));
        let bytes = OBJECT_BYTES + fields.as_ref().map_or(0, |fields| fields.bytes());
        if let Err((what, remedy)) = room.take(bytes) {
            let (line, path) = (root.line, String::new());
            problems.push(Problem { line, path, code: code::LIMIT_EXCEEDED, what, remedy });
            return None;
        }
        let source = Source { file: self.file.clone(), line: root.line, fields };
        if kind.is_istio() {
            const ROOT_FIELDS: [&str; 5] = ["apiVersion", "kind", "metadata", "spec", "status"];
            typed::unknown_fields(root, &Path::Root, &ROOT_FIELDS, problems);
        }
        let metadata = identity::metadata(root, kind, object, source, &mut self.names, problems, room);
        fn with<T: DeserializeOwned>(node: &Node<'_>, problems: &mut Problems, room: &mut Room) -> Option<T> {
            typed::read(node, &Path::Root, Unknown::Ignored, problems, room)
        }
        macro_rules! object {
            ($variant:ident, $spec:expr) => {{
                let spec = $spec?;
                AnyObject::$variant(Arc::new(Object { metadata: metadata?, spec }))
            }};
        }
        let value = match kind {
            Kind::Namespace => object!(Namespace, with(root, problems, room)),
            Kind::Node => object!(Node, with(root, problems, room)),
            Kind::Service => object!(Service, with(root, problems, room)),
            Kind::EndpointSlice => object!(EndpointSlice, with(root, problems, room)),
            Kind::Pod => object!(Pod, pod(root, problems, room)),
            Kind::Secret => object!(Secret, secret(root, problems, room)),
            Kind::VirtualService => object!(VirtualService, spec(root, problems, room)),
            Kind::DestinationRule => object!(DestinationRule, spec(root, problems, room)),
            Kind::ProxyConfig => object!(ProxyConfig, spec(root, problems, room)),
            Kind::Gateway => object!(Gateway, spec(root, problems, room)),
            Kind::ServiceEntry => object!(ServiceEntry, service_entry(root, problems, room)),
            Kind::WorkloadEntry => object!(WorkloadEntry, workload_entry(root, problems, room)),
            Kind::Sidecar => object!(Sidecar, spec(root, problems, room)),
            Kind::PeerAuthentication => object!(PeerAuthentication, policy(root, problems, room)),
            Kind::RequestAuthentication => object!(RequestAuthentication, policy(root, problems, room)),
            Kind::AuthorizationPolicy => object!(AuthorizationPolicy, policy(root, problems, room)),
        };
        problems.is_empty().then_some(value)
    }
}

/// Annotation of a WorkloadEntry: whether its status says how it is.
const HEALTH_CHECKS_ANNOTATION: &str = "proxy.istio.io/health-checks-enabled";

/// What an annotation of an object says.
fn annotation<'n>(root: &'n Node<'_>, name: &str) -> Option<&'n str> {
    root.get("metadata")?.get("annotations")?.get(name)?.text()
}

/// A Pod, with the annotations that matter.
fn pod(root: &Node<'_>, problems: &mut Problems, room: &mut Room) -> Option<Pod> {
    let mut pod: Pod = typed::read(root, &Path::Root, Unknown::Ignored, problems, room)?;
    let annotation = |name| annotation(root, name).map(Box::from);
    let annotations = PodAnnotations {
        proxy_config: annotation(PROXY_CONFIG_ANNOTATION),
        interception_mode: annotation(INTERCEPTION_MODE_ANNOTATION),
        include_inbound_ports: annotation(INCLUDE_INBOUND_PORTS_ANNOTATION),
        exclude_inbound_ports: annotation(EXCLUDE_INBOUND_PORTS_ANNOTATION),
    };
    pod.annotations = (annotations != PodAnnotations::default()).then(|| Box::new(annotations));
    Some(pod)
}

/// A ServiceEntry, with the annotation that matters.
fn service_entry(root: &Node<'_>, problems: &mut Problems, room: &mut Room) -> Option<ServiceEntry> {
    let mut entry: ServiceEntry = spec(root, problems, room)?;
    entry.traffic_distribution = annotation(root, TRAFFIC_DISTRIBUTION_ANNOTATION).map(Box::from);
    Some(entry)
}

/// A WorkloadEntry, with what its annotation and its status say of its health.
fn workload_entry(root: &Node<'_>, problems: &mut Problems, room: &mut Room) -> Option<WorkloadEntry> {
    let mut entry: WorkloadEntry = spec(root, problems, room)?;
    let told = annotation(root, HEALTH_CHECKS_ANNOTATION);
    let is_checked = told.is_some_and(|told| matches!(told, "1" | "t" | "T" | "TRUE" | "true" | "True"));
    let is_healthy = |condition: &Node<'_>| {
        let says = |field: &str, text: &str| condition.get(field).and_then(Node::text) == Some(text);
        says("type", "Healthy") && says("status", "True")
    };
    let conditions = root.get("status").and_then(|status| status.get("conditions"));
    entry.is_sick = is_checked && !conditions.is_some_and(|it| it.items().iter().any(is_healthy));
    Some(entry)
}

/// A Secret. What is wrong with it is told without what is written there.
fn secret(root: &Node<'_>, problems: &mut Problems, room: &mut Room) -> Option<Secret> {
    let mut found = problems.fresh();
    let secret = typed::read(root, &Path::Root, Unknown::Ignored, &mut found, room);
    found.hide(|problem| {
        problem.what = "it is not what a Secret has here".to_owned();
        problem.remedy = "write text under each name of `data` (in base64) or `stringData`".to_owned();
    });
    problems.append(found);
    secret
}

/// The `spec` of an object of Istio's, read strictly.
fn spec<T: DeserializeOwned>(root: &Node<'_>, problems: &mut Problems, room: &mut Room) -> Option<T> {
    let path = Path::Root;
    let path = path.field("spec");
    let Some(entry) = root.entry("spec") else {
        problems.push(Problem {
            line: root.line,
            path: "spec".to_owned(),
            code: code::MISSING_FIELD,
            what: "the object says nothing: `spec` is missing or empty".to_owned(),
            remedy: "add `spec:` and what it is to hold".to_owned(),
        });
        return None;
    };
    typed::read(&entry.value, &path, Unknown::Refused, problems, room)
}

/// The `spec` of a security policy, where to say nothing means something: an AuthorizationPolicy without one allows
/// nothing.
fn policy<T: DeserializeOwned + Default>(
    root: &Node<'_>,
    problems: &mut Problems,
    room: &mut Room,
) -> Option<T> {
    match root.entry("spec").filter(|entry| !entry.value.is_null()) {
        Some(_) => spec(root, problems, room),
        None => Some(T::default()),
    }
}

fn is_list(meta: &TypeMeta<'_>, root: &Node<'_>) -> bool {
    let typed_list = meta.kind.ends_with("List")
        && matches!(root.get("items"), Some(Node { value: Value::Sequence(_), .. }));
    typed_list || (meta.api_version == "v1" && meta.kind == "List")
}

/// A problem of a List as the problem of its item `index`, if it is one.
fn within_item(problem: &Problem, index: usize) -> Option<Problem> {
    let rest = problem.path.strip_prefix(&format!("items[{index}]"))?;
    let path = rest.strip_prefix('.').unwrap_or(rest).to_owned();
    Some(Problem { path, ..problem.clone() })
}
