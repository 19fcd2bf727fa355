// Package certificates holds the certificates.k8s.io API group:
// CertificateSigningRequests, by which agents, proxies and users get
// certificates from the cluster's authority once somebody has approved.
package certificates
