//! The page for people: one document, one style sheet and one script, embedded as they are written. It asks the other pages
//! and shows what they say.

use http::StatusCode;

use super::answer::{Content, Page};
use super::query::Query;

/// The document. `explain` and `id` in its query are for its script.
pub(super) fn document(query: &Query) -> Page {
    if let Some((name, _)) = query.0.iter().find(|(name, _)| !["explain", "id"].contains(&&**name)) {
        return Page::text(StatusCode::BAD_REQUEST, format!("`{name}` is not one of explain, id\n"));
    }
    of("text/html; charset=UTF-8", include_str!("page/index.html"))
}

/// Its style sheet.
pub(super) fn style() -> Page {
    of("text/css; charset=UTF-8", include_str!("page/page.css"))
}

/// Its script.
pub(super) fn script() -> Page {
    of("text/javascript; charset=UTF-8", include_str!("page/page.js"))
}

fn of(content_type: &'static str, text: &'static str) -> Page {
    Page::plain(StatusCode::OK, content_type, Content::Whole(text.as_bytes().to_vec()))
}
