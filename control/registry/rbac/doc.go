// Package rbac holds the rbac.authorization.k8s.io API group: roles and what
// binds them. Nobody can grant through it what they may not do themselves,
// unless they are allowed to escalate or to bind.
package rbac
