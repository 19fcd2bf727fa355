package core

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	utilnet "k8s.io/apimachinery/pkg/util/net"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apiserver/pkg/registry/rest"

	"github.com/skiff-run/skiff/control/registry"
)

// nodeKind serves nodes. An agent creates its node with a status, so status is not reset then.
func nodeKind() registry.Kind[*corev1.Node] {
	return registry.Kind[*corev1.Node]{
		Version: corev1.SchemeGroupVersion, Plural: "nodes", Singular: "node", ShortNames: []string{"no"}, ClusterScoped: true,
		New:                func() *corev1.Node { return &corev1.Node{} },
		NewList:            func() runtime.Object { return &corev1.NodeList{} },
		Default:            defaultNode,
		Spec:               func(n *corev1.Node) any { return &n.Spec },
		Status:             func(n *corev1.Node) any { return &n.Status },
		KeepStatusOnCreate: true,
		PrepareForCreate:   func(_ context.Context, n *corev1.Node) { dropNodeFields(n) },
		PrepareForUpdate:   func(_ context.Context, n, _ *corev1.Node) { dropNodeSpecFields(n) },
		Validate:           func(_ context.Context, n *corev1.Node) field.ErrorList { return validateNode(n) },
		ValidateUpdate:     func(_ context.Context, n, old *corev1.Node) field.ErrorList { return validateNodeUpdate(n, old) },
		Warnings:           func(_ context.Context, n, _ *corev1.Node) []string { return nodeWarnings(n) },
		PrepareStatus:      func(_ context.Context, n, _ *corev1.Node) { n.Status.Config = nil },
		ValidateStatus:     func(_ context.Context, n, old *corev1.Node) field.ErrorList { return validateNodeUpdate(n, old) },
		Fields: func(n *corev1.Node) fields.Set {
			return fields.Set{"spec.unschedulable": fmt.Sprint(n.Spec.Unschedulable)}
		},
		Columns: nodeColumns(),
		Row:     nodeRow,
	}
}

// defaultNode: what can be allocated is the whole capacity unless the agent says otherwise. The
// one CIDR and the list of CIDRs say the same.
func defaultNode(n *corev1.Node) {
	roundUp(n.Status.Capacity)
	if n.Status.Allocatable == nil && n.Status.Capacity != nil {
		n.Status.Allocatable = n.Status.Capacity.DeepCopy()
	}
	roundUp(n.Status.Allocatable)
	spec := &n.Spec
	switch {
	case spec.PodCIDR == "" && len(spec.PodCIDRs) > 0:
		spec.PodCIDR = spec.PodCIDRs[0]
	case spec.PodCIDR != "" && (len(spec.PodCIDRs) == 0 || spec.PodCIDRs[0] != spec.PodCIDR):
		spec.PodCIDRs = []string{spec.PodCIDR}
	}
}

// roundUp rounds quantities up to thousandths, the finest unit the API keeps.
func roundUp(list corev1.ResourceList) {
	for name, quantity := range list {
		quantity.RoundUp(-3)
		list[name] = quantity
	}
}

// dropNodeFields removes fields whose features are gone or off by default.
func dropNodeFields(n *corev1.Node) {
	dropNodeSpecFields(n)
	n.Status.Config = nil
}

func dropNodeSpecFields(n *corev1.Node) {
	n.Spec.ConfigSource = nil
	n.Spec.PodPreemptionPolicy = nil
}

func nodeWarnings(n *corev1.Node) (texts []string) {
	if n.Spec.DoNotUseExternalID != "" {
		texts = append(texts, "spec.externalID: this field is deprecated, and is unused by Kubernetes")
	}
	for i, cidr := range n.Spec.PodCIDRs {
		texts = append(texts, validation.GetWarningsForCIDR(field.NewPath("spec", "podCIDRs").Index(i), cidr)...)
	}
	return texts
}

func nodeColumns() []metav1.TableColumnDefinition {
	info := corev1.NodeSystemInfo{}.SwaggerDoc()
	addresses := corev1.NodeStatus{}.SwaggerDoc()["addresses"]
	return []metav1.TableColumnDefinition{
		registry.NameColumn(),
		registry.Column("Status", "string", "The status of the node"),
		registry.Column("Roles", "string", "The roles of the node"),
		registry.AgeColumn(),
		registry.Column("Version", "string", info["kubeletVersion"]),
		registry.Wide(registry.Column("Internal-IP", "string", addresses)),
		registry.Wide(registry.Column("External-IP", "string", addresses)),
		registry.Wide(registry.Column("OS-Image", "string", info["osImage"])),
		registry.Wide(registry.Column("Kernel-Version", "string", info["kernelVersion"])),
		registry.Wide(registry.Column("Container-Runtime", "string", info["containerRuntimeVersion"])),
	}
}

func nodeRow(n *corev1.Node) []any {
	info := n.Status.NodeInfo
	kernel := orUnknown(info.KernelVersion)
	if info.Architecture != "" {
		kernel += " (" + info.Architecture + ")"
	}
	return []any{
		n.Name, nodeStatus(n), orNone(strings.Join(nodeRoles(n.Labels), ",")), registry.Age(n.CreationTimestamp), info.KubeletVersion,
		nodeAddress(n, corev1.NodeInternalIP), nodeAddress(n, corev1.NodeExternalIP),
		orUnknown(info.OSImage), kernel, orUnknown(info.ContainerRuntimeVersion),
	}
}

func orUnknown(text string) string {
	if text == "" {
		return "<unknown>"
	}
	return text
}

func nodeStatus(n *corev1.Node) string {
	status := "Unknown"
	for _, condition := range n.Status.Conditions {
		if condition.Type != corev1.NodeReady {
			continue
		}
		status = "NotReady"
		if condition.Status == corev1.ConditionTrue {
			status = "Ready"
		}
	}
	if n.Spec.Unschedulable {
		status += ",SchedulingDisabled"
	}
	return status
}

// nodeRoles reads roles from labels: node-role.kubernetes.io/<role>, or kubernetes.io/role=<role>.
func nodeRoles(labels map[string]string) []string {
	var roles []string
	for key, value := range labels {
		if role, found := strings.CutPrefix(key, "node-role.kubernetes.io/"); found && role != "" {
			roles = append(roles, role)
		} else if key == "kubernetes.io/role" && value != "" {
			roles = append(roles, value)
		}
	}
	slices.Sort(roles)
	return slices.Compact(roles)
}

func nodeAddress(n *corev1.Node, kind corev1.NodeAddressType) string {
	for _, address := range n.Status.Addresses {
		if address.Type == kind {
			return address.Address
		}
	}
	return none
}

// nodeProxy hands requests on to a node's port: its agent's by default.
func nodeProxy(reach *agents, transport http.RoundTripper) rest.Storage {
	return &connection{
		methods: proxyMethods,
		options: func() runtime.Object { return &corev1.NodeProxyOptions{} },
		path:    "path",
		open: func(ctx context.Context, id string, object runtime.Object, responder rest.Responder) (http.Handler, error) {
			options, ok := object.(*corev1.NodeProxyOptions)
			if !ok {
				return nil, fmt.Errorf("invalid options object: %T", object)
			}
			scheme, name, port, valid := utilnet.SplitSchemeNamePort(id)
			if !valid {
				return nil, errors.NewBadRequest(fmt.Sprintf("invalid node request %q", id))
			}
			agent, err := reach.of(ctx, name)
			if err != nil {
				return nil, err
			}
			if err := proxyable(ctx, agent.host); err != nil {
				return nil, errors.NewBadRequest(err.Error())
			}
			location, through := &url.URL{Scheme: "https", Host: agent.address()}, reach.transport
			if port != "" && port != agent.port {
				location, through = &url.URL{Scheme: scheme, Host: net.JoinHostPort(agent.host, port)}, transport
			}
			location.Path = utilnet.JoinPreservingTrailingSlash(location.Path, options.Path)
			return upgradeAware(location, through, true, false, responder), nil
		},
	}
}

// proxyable keeps users from reaching the API server's own neighbourhood by way of a node object.
func proxyable(ctx context.Context, host string) error {
	addresses, err := net.DefaultResolver.LookupIPAddr(ctx, host)
	if err != nil {
		return err
	}
	if len(addresses) == 0 {
		return fmt.Errorf("no addresses for hostname")
	}
	for _, address := range addresses {
		if !address.IP.IsGlobalUnicast() {
			return fmt.Errorf("address not allowed")
		}
	}
	return nil
}
