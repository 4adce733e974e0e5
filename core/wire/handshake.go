package wire

// What a gateway and a plugin agree on before they speak: the handshake of hashicorp/go-plugin, which docs/plugins.md
// describes for other languages. The cookie keeps a plugin that a person starts by hand from waiting for nobody; it is no
// protection.
const (
	// ProtocolVersion is the version of transport.proto's package.
	ProtocolVersion = 1
	// CookieKey and CookieValue are an environment variable of the plugin.
	CookieKey   = "FLOGATE_PLUGIN"
	CookieValue = "3f1d3c5e9a0b4c0f8a53d5f4f2a7e6c1"
	// PluginName names the plugin within go-plugin.
	PluginName = "transport"
)
