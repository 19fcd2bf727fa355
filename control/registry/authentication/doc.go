// Package authentication holds the authentication.k8s.io API group: reviews,
// which answer who somebody is and store nothing.
package authentication
