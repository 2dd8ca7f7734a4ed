//! What Pingora asks of a client's connection beside reading and writing.

/// Lets a type answer by its field `socket`, a stream of Pingora's.
macro_rules! answer_by_socket {
    ($outer:ty) => {
        #[async_trait::async_trait]
        impl pingora::protocols::Shutdown for $outer {
            async fn shutdown(&mut self) {
                self.socket.shutdown().await;
            }
        }

        impl pingora::protocols::UniqueID for $outer {
            fn id(&self) -> pingora::protocols::UniqueIDType {
                self.socket.id()
            }
        }

        impl pingora::protocols::Ssl for $outer {
            fn get_ssl(&self) -> Option<&pingora::protocols::tls::TlsRef> {
                self.socket.get_ssl()
            }

            fn get_ssl_digest(&self) -> Option<std::sync::Arc<pingora::protocols::tls::SslDigest>> {
                self.socket.get_ssl_digest()
            }

            fn selected_alpn_proto(&self) -> Option<pingora::protocols::ALPN> {
                self.socket.selected_alpn_proto()
            }
        }

        impl pingora::protocols::GetTimingDigest for $outer {
            /// Nobody asks for it, and it would be an allocation with every request.
            fn get_timing_digest(&self) -> Vec<Option<pingora::protocols::TimingDigest>> {
                Vec::new()
            }
        }

        impl pingora::protocols::GetProxyDigest for $outer {
            fn get_proxy_digest(
                &self,
            ) -> Option<std::sync::Arc<pingora::protocols::raw_connect::ProxyDigest>> {
                self.socket.get_proxy_digest()
            }
        }

        impl pingora::protocols::GetSocketDigest for $outer {
            fn get_socket_digest(&self) -> Option<std::sync::Arc<pingora::protocols::SocketDigest>> {
                self.socket.get_socket_digest()
            }
        }

        impl pingora::protocols::Peek for $outer {}
    };
}

pub(super) use answer_by_socket;
