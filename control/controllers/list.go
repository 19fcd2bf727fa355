package controllers

import (
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/metadata"

	"github.com/skiff-run/skiff/control/controllers/attachdetach"
	"github.com/skiff-run/skiff/control/controllers/bootstrapsigner"
	"github.com/skiff-run/skiff/control/controllers/clusterrole"
	"github.com/skiff-run/skiff/control/controllers/csrapproving"
	"github.com/skiff-run/skiff/control/controllers/csrcleaner"
	"github.com/skiff-run/skiff/control/controllers/csrsigning"
	"github.com/skiff-run/skiff/control/controllers/deployment"
	"github.com/skiff-run/skiff/control/controllers/endpoints"
	"github.com/skiff-run/skiff/control/controllers/endpointslice"
	"github.com/skiff-run/skiff/control/controllers/endpointslicemirroring"
	"github.com/skiff-run/skiff/control/controllers/ephemeralvolume"
	"github.com/skiff-run/skiff/control/controllers/garbagecollector"
	"github.com/skiff-run/skiff/control/controllers/loadbalancer"
	"github.com/skiff-run/skiff/control/controllers/localpath"
	"github.com/skiff-run/skiff/control/controllers/namespace"
	"github.com/skiff-run/skiff/control/controllers/nodeipam"
	"github.com/skiff-run/skiff/control/controllers/nodelifecycle"
	"github.com/skiff-run/skiff/control/controllers/persistentvolume"
	"github.com/skiff-run/skiff/control/controllers/podgc"
	"github.com/skiff-run/skiff/control/controllers/replicaset"
	"github.com/skiff-run/skiff/control/controllers/rootca"
	"github.com/skiff-run/skiff/control/controllers/serviceaccount"
	"github.com/skiff-run/skiff/control/controllers/tainteviction"
	"github.com/skiff-run/skiff/control/controllers/tokencleaner"
	"github.com/skiff-run/skiff/control/controllers/volumeprotection"
)

// entry is a controller in the list: its name, the service account it acts as
// (upstream's, to which upstream's roles are bound), and how it is made. A nil
// controller is one that the configuration leaves nothing to do.
type entry struct {
	name           string
	serviceAccount string
	make           func(part) (controller, error)
}

// all has every controller. A new one is a folder and a line here.
var all = []entry{
	{"deployment", "deployment-controller", plain(func(p part, client kubernetes.Interface) (controller, error) {
		return deployment.New(client, p.Informers, p.Logger)
	})},
	{"replicaset", "replicaset-controller", plain(func(p part, client kubernetes.Interface) (controller, error) {
		return replicaset.New(client, p.Informers, p.Logger)
	})},
	{"endpointslice", "endpointslice-controller", plain(func(p part, client kubernetes.Interface) (controller, error) {
		return endpointslice.New(client, p.Informers, p.Logger)
	})},
	{"endpoints", "endpoint-controller", plain(func(p part, client kubernetes.Interface) (controller, error) {
		return endpoints.New(client, p.Informers, p.Logger), nil
	})},
	{"endpointslicemirroring", "endpointslicemirroring-controller", plain(func(p part, client kubernetes.Interface) (controller, error) {
		return endpointslicemirroring.New(client, p.Informers, p.Logger), nil
	})},
	{"namespace", "namespace-controller", withMetadata(func(p part, client kubernetes.Interface, objects metadata.Interface) (controller, error) {
		return namespace.New(client, objects, p.Informers, p.Logger), nil
	})},
	{"garbagecollector", "generic-garbage-collector", withMetadata(func(p part, client kubernetes.Interface, objects metadata.Interface) (controller, error) {
		return garbagecollector.New(client, objects, p.Informers, p.Rediscover, p.Logger), nil
	})},
	{"serviceaccount", "service-account-controller", plain(func(p part, client kubernetes.Interface) (controller, error) {
		return serviceaccount.New(client, p.Informers, p.Logger), nil
	})},
	{"rootca", "root-ca-cert-publisher", plain(func(p part, client kubernetes.Interface) (controller, error) {
		if p.RootCA == nil {
			return nil, nil
		}
		return rootca.New(client, p.Informers, p.RootCA, p.Logger), nil
	})},
	{"nodelifecycle", "node-controller", plain(func(p part, client kubernetes.Interface) (controller, error) {
		return nodelifecycle.New(client, p.Informers, p.Nodes, p.Logger)
	})},
	{"tainteviction", "node-controller", plain(func(p part, client kubernetes.Interface) (controller, error) {
		return tainteviction.New(client, p.Informers, p.Logger)
	})},
	{"nodeipam", "node-controller", plain(func(p part, client kubernetes.Interface) (controller, error) {
		if len(p.PodCIDRs) == 0 {
			return nil, nil
		}
		return nodeipam.New(client, p.Informers, p.PodCIDRs, p.ServiceCIDRs, p.Logger)
	})},
	{"loadbalancer", "service-controller", plain(func(p part, client kubernetes.Interface) (controller, error) {
		return loadbalancer.New(client, p.Informers, p.LoadBalancerPool, p.Logger), nil
	})},
	{"podgc", "pod-garbage-collector", plain(func(p part, client kubernetes.Interface) (controller, error) {
		threshold := p.TerminatedPods
		if threshold == 0 {
			threshold = podgc.Threshold
		}
		return podgc.New(client, p.Informers, threshold, p.Logger)
	})},
	{"clusterrole", "clusterrole-aggregation-controller", plain(func(p part, client kubernetes.Interface) (controller, error) {
		return clusterrole.New(client, p.Informers, p.Logger), nil
	})},
	{"tokencleaner", "token-cleaner", plain(func(p part, client kubernetes.Interface) (controller, error) {
		return tokencleaner.New(client, p.Informers, p.Logger), nil
	})},
	{"bootstrapsigner", "bootstrap-signer", plain(func(p part, client kubernetes.Interface) (controller, error) {
		return bootstrapsigner.New(client, p.Informers, p.Logger), nil
	})},
	{"csrapproving", "certificate-controller", plain(func(p part, client kubernetes.Interface) (controller, error) {
		return csrapproving.New(client, p.Informers, p.Logger), nil
	})},
	{"csrsigning", "certificate-controller", plain(func(p part, client kubernetes.Interface) (controller, error) {
		if p.Authority == nil {
			return nil, nil
		}
		return csrsigning.New(client, p.Informers, p.Authority, p.Logger), nil
	})},
	{"csrcleaner", "certificate-controller", plain(func(p part, client kubernetes.Interface) (controller, error) {
		return csrcleaner.New(client, p.Informers, p.Logger), nil
	})},
	{"persistentvolume-binder", "persistent-volume-binder", plain(func(p part, client kubernetes.Interface) (controller, error) {
		return persistentvolume.New(client, p.Informers, p.Logger)
	})},
	{"persistentvolumeclaim-protection", "pvc-protection-controller", plain(func(p part, client kubernetes.Interface) (controller, error) {
		return volumeprotection.NewClaims(client, p.Informers, p.Logger)
	})},
	{"persistentvolume-protection", "pv-protection-controller", plain(func(p part, client kubernetes.Interface) (controller, error) {
		return volumeprotection.NewVolumes(client, p.Informers, p.Logger), nil
	})},
	{"ephemeral-volume", "ephemeral-volume-controller", plain(func(p part, client kubernetes.Interface) (controller, error) {
		return ephemeralvolume.New(client, p.Informers, p.Logger)
	})},
	{"attachdetach", "attachdetach-controller", plain(func(p part, client kubernetes.Interface) (controller, error) {
		return attachdetach.New(client, p.Informers, p.Logger)
	})},
	{"localpath", "local-path-provisioner", plain(func(p part, client kubernetes.Interface) (controller, error) {
		return localpath.New(client, p.Informers, p.Logger), nil
	})},
}

// plain makes a controller that needs an ordinary client.
func plain(make func(part, kubernetes.Interface) (controller, error)) func(part) (controller, error) {
	return func(p part) (controller, error) {
		client, err := p.client()
		if err != nil {
			return nil, err
		}
		return make(p, client)
	}
}

// withMetadata makes a controller that handles objects of any kind as well.
func withMetadata(make func(part, kubernetes.Interface, metadata.Interface) (controller, error)) func(part) (controller, error) {
	return func(p part) (controller, error) {
		client, err := p.client()
		if err != nil {
			return nil, err
		}
		objects, err := p.metadata()
		if err != nil {
			return nil, err
		}
		return make(p, client, objects)
	}
}
