//! HTTP/1 and HTTP/2: protocols, and the order of an exchange.
