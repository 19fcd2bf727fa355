package admission

import (
	"context"
	"math/rand/v2"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/storage/names"
	"k8s.io/client-go/kubernetes"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/utils/ptr"
)

const (
	defaultAccount = "default"
	tokenMountPath = "/var/run/secrets/kubernetes.io/serviceaccount"
	// tokenVolumePrefix begins the name of the volume that carries the token.
	tokenVolumePrefix = "kube-api-access-"
	// tokenSeconds is what upstream asks for: an hour and 7 seconds, by which such
	// tokens are told from others.
	tokenSeconds = 3607
)

// serviceAccount gives pods their account, its pull secrets, and a token.
type serviceAccount struct {
	operations
	client   kubernetes.Interface
	accounts corelisters.ServiceAccountLister
	synced   func() bool
}

func newServiceAccount(c Config) *serviceAccount {
	informer := c.Informers.Core().V1().ServiceAccounts()
	return &serviceAccount{on(admission.Create), c.Client, informer.Lister(), informer.Informer().HasSynced}
}

// Admit implements admission.MutationInterface.
func (s *serviceAccount) Admit(ctx context.Context, a admission.Attributes, _ admission.ObjectInterfaces) error {
	pod, ok := a.GetObject().(*corev1.Pod)
	if !ok || !concerns(a, "", "pods") {
		return nil
	}
	if _, mirror := pod.Annotations[corev1.MirrorPodAnnotationKey]; mirror {
		return s.Validate(ctx, a, nil)
	}
	if pod.Spec.ServiceAccountName == "" {
		pod.Spec.ServiceAccountName = defaultAccount
	}
	pod.Spec.DeprecatedServiceAccount = pod.Spec.ServiceAccountName
	account, err := s.account(ctx, a.GetNamespace(), pod.Spec.ServiceAccountName)
	if err != nil {
		return forbidden(a, "error looking up service account %s/%s: %w", a.GetNamespace(), pod.Spec.ServiceAccountName, err)
	}
	if mounts(account, pod) {
		mountToken(pod)
	}
	if len(pod.Spec.ImagePullSecrets) == 0 {
		pod.Spec.ImagePullSecrets = slices.Clone(account.ImagePullSecrets)
	}
	return nil
}

// Validate implements admission.ValidationInterface.
func (s *serviceAccount) Validate(ctx context.Context, a admission.Attributes, _ admission.ObjectInterfaces) error {
	pod, ok := a.GetObject().(*corev1.Pod)
	if !ok || !concerns(a, "", "pods") {
		return nil
	}
	if _, mirror := pod.Annotations[corev1.MirrorPodAnnotationKey]; mirror {
		if pod.Spec.ServiceAccountName != "" {
			return forbidden(a, "a mirror pod may not reference service accounts")
		}
		for _, volume := range pod.Spec.Volumes {
			if volume.Secret != nil || volume.Projected != nil && slices.ContainsFunc(volume.Projected.Sources, func(p corev1.VolumeProjection) bool {
				return p.Secret != nil || p.ServiceAccountToken != nil
			}) {
				return forbidden(a, "a mirror pod may not reference secrets")
			}
		}
		return nil
	}
	if _, err := s.account(ctx, a.GetNamespace(), pod.Spec.ServiceAccountName); err != nil {
		return forbidden(a, "error looking up service account %s/%s: %w", a.GetNamespace(), pod.Spec.ServiceAccountName, err)
	}
	return nil
}

// account looks in the cache, then in the API, and for the account that every
// namespace is about to get it waits a moment.
func (s *serviceAccount) account(ctx context.Context, namespace, name string) (*corev1.ServiceAccount, error) {
	if account, err := s.accounts.ServiceAccounts(namespace).Get(name); err == nil {
		return account, nil
	}
	tries := 1
	if name == defaultAccount {
		tries = 10
	}
	for try := 1; ; try++ {
		account, err := s.client.CoreV1().ServiceAccounts(namespace).Get(ctx, name, metav1.GetOptions{})
		if err == nil || !apierrors.IsNotFound(err) || try >= tries {
			return account, err
		}
		select {
		case <-ctx.Done():
			return nil, err
		case <-time.After(100*time.Millisecond + time.Duration(rand.IntN(100))*time.Millisecond):
		}
	}
}

// mounts says whether the pod wants the token: its own word counts before the account's.
func mounts(account *corev1.ServiceAccount, pod *corev1.Pod) bool {
	if own := pod.Spec.AutomountServiceAccountToken; own != nil {
		return *own
	}
	return account.AutomountServiceAccountToken == nil || *account.AutomountServiceAccountToken
}

// mountToken adds the volume with token, CA and namespace, and mounts it where
// a container has nothing at that path.
func mountToken(pod *corev1.Pod) {
	volume := ""
	for _, v := range pod.Spec.Volumes {
		if len(v.Name) > len(tokenVolumePrefix) && v.Name[:len(tokenVolumePrefix)] == tokenVolumePrefix {
			volume = v.Name
		}
	}
	existing := volume != ""
	if !existing {
		volume = names.SimpleNameGenerator.GenerateName(tokenVolumePrefix)
	}
	used := false
	mount := func(containers []corev1.Container) {
		for i := range containers {
			taken := slices.ContainsFunc(containers[i].VolumeMounts, func(m corev1.VolumeMount) bool { return m.MountPath == tokenMountPath })
			if !taken {
				containers[i].VolumeMounts = append(containers[i].VolumeMounts, corev1.VolumeMount{Name: volume, ReadOnly: true, MountPath: tokenMountPath})
				used = true
			}
		}
	}
	mount(pod.Spec.InitContainers)
	mount(pod.Spec.Containers)
	if used && !existing {
		pod.Spec.Volumes = append(pod.Spec.Volumes, tokenVolume(volume))
	}
}

func tokenVolume(name string) corev1.Volume {
	return corev1.Volume{Name: name, VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{
		DefaultMode: ptr.To(corev1.ProjectedVolumeSourceDefaultMode),
		Sources: []corev1.VolumeProjection{
			{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{Path: "token", ExpirationSeconds: ptr.To[int64](tokenSeconds)}},
			{ConfigMap: &corev1.ConfigMapProjection{
				LocalObjectReference: corev1.LocalObjectReference{Name: "kube-root-ca.crt"},
				Items:                []corev1.KeyToPath{{Key: "ca.crt", Path: "ca.crt"}},
			}},
			{DownwardAPI: &corev1.DownwardAPIProjection{Items: []corev1.DownwardAPIVolumeFile{
				{Path: "namespace", FieldRef: &corev1.ObjectFieldSelector{APIVersion: "v1", FieldPath: "metadata.namespace"}},
			}}},
		},
	}}}
}
