//! The authority behind the traits of `serve`: keys at hand answer at once.

use std::{pin::Pin, sync::Arc};

use crate::{
    ca::Authority,
    clock::Wall,
    serve::identity::{Bearer, Leaf, Signer, Tokens},
};

struct Local(Arc<Authority>);

struct LocalTokens(Arc<Authority>, Wall);

pub(crate) fn signer(authority: Arc<Authority>) -> Arc<dyn Signer> {
    Arc::new(Local(authority))
}

pub(crate) fn tokens(authority: Arc<Authority>, clock: Wall) -> Arc<dyn Tokens> {
    Arc::new(LocalTokens(authority, clock))
}

impl Signer for Local {
    fn sign(&self, request: &[u8], identity: &str) -> Result<Leaf, String> {
        let issued = self
            .0
            .sign(request, identity)
            .map_err(|error| error.to_string())?;
        Ok(Leaf {
            chain: issued.chain,
            issued: issued.issued,
            expires: issued.expires,
        })
    }
}

impl Tokens for LocalTokens {
    fn verify<'a>(
        &'a self,
        token: &'a str,
    ) -> Pin<Box<dyn Future<Output = Result<Bearer, String>> + Send + 'a>> {
        let claimed = self.0.tokens().verify(token, self.1);
        let bearer = claimed
            .map(|it| Bearer {
                pod: it.pod,
                uid: it.uid,
                service_account: it.service_account,
            })
            .map_err(|error| error.to_string());
        Box::pin(std::future::ready(bearer))
    }
}
