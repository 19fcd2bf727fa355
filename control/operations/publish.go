package operations

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	"k8s.io/cluster-bootstrap/token/api"
)

const (
	// controlPlane is the label of nodes on control machines.
	controlPlane = "node-role.kubernetes.io/control-plane"
	// refreshEvery is how often cluster-info is compared with the authorities on
	// disk, which an administrator may replace.
	refreshEvery = time.Minute
	// retryAfter is how long a failed try waits for the next.
	retryAfter = time.Second
	// nodeSoon is how long to wait for the agent to register its node.
	nodeSoon = 250 * time.Millisecond
)

// Run keeps the ConfigMap kube-public/cluster-info, by which machines that
// want to join learn the cluster's authority, and the label by which people and
// tools see that this machine's node is of the control plane, until ctx ends.
func (o *Operations) Run(ctx context.Context) {
	for {
		wait := refreshEvery
		for _, ensure := range []func(context.Context) error{o.ensureClusterInfo, o.ensureLabel} {
			err := ensure(ctx)
			switch {
			case errors.Is(err, errNoNode):
				wait = min(wait, nodeSoon)
			case err != nil:
				wait = min(wait, retryAfter)
			}
			if err != nil && ctx.Err() == nil && !errors.Is(err, errNoNode) {
				o.Logger.Warn("what other machines see of this one is not up to date; trying again", "error", err)
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
	}
}

// errNoNode says that the agent of this machine has not registered yet.
var errNoNode = errors.New("no such node yet")

// ensureLabel puts kubeadm's label on this machine's node: an agent must not
// give itself a role.
func (o *Operations) ensureLabel(ctx context.Context) error {
	node, err := o.Client.CoreV1().Nodes().Get(ctx, o.NodeName, metav1.GetOptions{ResourceVersion: "0"})
	if apierrors.IsNotFound(err) {
		return errNoNode
	}
	if err != nil {
		return fmt.Errorf("read node %s: %w", o.NodeName, err)
	}
	if value, labelled := node.Labels[controlPlane]; labelled && value == "" {
		return nil
	}
	patch := fmt.Sprintf(`{"metadata":{"labels":{%q:""}}}`, controlPlane)
	if _, err := o.Client.CoreV1().Nodes().Patch(ctx, o.NodeName, types.StrategicMergePatchType, []byte(patch), metav1.PatchOptions{}); err != nil {
		return fmt.Errorf("label node %s: %w", o.NodeName, err)
	}
	return nil
}

func (o *Operations) ensureClusterInfo(ctx context.Context) error {
	ca, err := os.ReadFile(filepath.Join(o.PKIDir, "ca.crt"))
	if err != nil {
		return fmt.Errorf("read the cluster's authority: %w", err)
	}
	maps := o.Client.CoreV1().ConfigMaps(metav1.NamespacePublic)
	current, err := maps.Get(ctx, api.ConfigMapClusterInfo, metav1.GetOptions{})
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("read cluster-info: %w", err)
	}
	missing := err != nil
	if !missing {
		// The address of any API server will do: only another authority is a reason to write.
		if known, err := clientcmd.Load([]byte(current.Data[api.KubeConfigKey])); err == nil {
			if cluster := known.Clusters[""]; cluster != nil && string(cluster.CertificateAuthorityData) == string(ca) {
				return nil
			}
		}
	}
	data, err := clientcmd.Write(clientcmdapi.Config{
		Clusters: map[string]*clientcmdapi.Cluster{"": {Server: "https://" + o.Address, CertificateAuthorityData: ca}},
	})
	if err != nil {
		return fmt.Errorf("encode cluster-info: %w", err)
	}
	if missing {
		_, err = maps.Create(ctx, &corev1.ConfigMap{
			ObjectMeta: metav1.ObjectMeta{Namespace: metav1.NamespacePublic, Name: api.ConfigMapClusterInfo},
			Data:       map[string]string{api.KubeConfigKey: string(data)},
		}, metav1.CreateOptions{})
	} else {
		changed := current.DeepCopy()
		if changed.Data == nil {
			changed.Data = map[string]string{}
		}
		changed.Data[api.KubeConfigKey] = string(data)
		_, err = maps.Update(ctx, changed, metav1.UpdateOptions{})
	}
	// Another API server may have been faster.
	if err != nil && !apierrors.IsAlreadyExists(err) && !apierrors.IsConflict(err) {
		return fmt.Errorf("publish cluster-info: %w", err)
	}
	return nil
}
