// Package discovery holds the discovery.k8s.io API group: EndpointSlices, from
// which proxies learn what is behind a Service.
package discovery
