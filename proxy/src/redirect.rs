//! Installs the nftables rules that bring traffic to the proxy.
