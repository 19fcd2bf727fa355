// Package registry is the pattern by which a kind becomes a resource of the
// API: a Kind says what is particular to it (defaults, validation, what may
// change, table columns), and Build makes from it the storage that
// k8s.io/apiserver's endpoints serve. A new resource costs one file in the
// folder of its group.
//
// Everything general, such as metadata, names, generations, dry-run, finalizers
// and field management, is done by k8s.io/apiserver's generic store and by the
// strategy in this package. What flows in is a Kind and the Dependencies; what
// flows out is rest.Storage by path. The package knows neither HTTP nor the
// store beneath.
package registry
