// Package apiserver assembles the API server: k8s.io/apiserver's generic server
// with Skiff's storage, resources, authentication, authorization and admission.
//
// What flows in is the store and a configuration; what flows out is HTTPS, and
// for the scheduler and the controllers of the same process clients that call
// the handler directly and informers that read the watch caches. It knows no
// agent, proxy or controller.
package apiserver
