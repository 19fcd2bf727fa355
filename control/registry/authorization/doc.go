// Package authorization holds the authorization.k8s.io API group: reviews,
// which answer what somebody may do and store nothing.
package authorization
