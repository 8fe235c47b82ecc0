//! The HTTP API (being merged).
mod http;
mod node;
mod settings;
pub use self::{http::*, node::*, settings::*};
/// Api.
pub struct Api<N: Node>(N);
impl<N: Node> Api<N> {
    /// New.
    pub fn new(node: N, _settings: ApiSettings) -> Self {
        Self(node)
    }
    /// Handle.
    pub async fn handle(&self, _request: HttpRequest) -> HttpResponse {
        let ok = self.0.health().fault.is_none();
        HttpResponse::json(if ok { ::http::StatusCode::OK } else { ::http::StatusCode::INTERNAL_SERVER_ERROR }, "{\"status\":\"ok\"}".into())
    }
    /// Handle.
    pub async fn handle_manager(&self, request: HttpRequest) -> HttpResponse {
        self.handle(request).await
    }
}
