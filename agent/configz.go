package agent

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	kubeletconfig "k8s.io/kubelet/config/v1beta1"
	"k8s.io/utils/ptr"

	"github.com/skiff-run/skiff/internal/config"
)

// kubeletConfiguration are the settings in the kubelet's words, for programs that
// ask a node how it is configured. What the kubelet has no word for is left out,
// and so are its settings that do not exist here.
func kubeletConfiguration(s *config.Agent, driver string) *kubeletconfig.KubeletConfiguration {
	duration := func(value string) metav1.Duration { return metav1.Duration{Duration: config.Duration(value)} }
	c := &kubeletconfig.KubeletConfiguration{
		TypeMeta:      metav1.TypeMeta{APIVersion: kubeletconfig.SchemeGroupVersion.String(), Kind: "KubeletConfiguration"},
		StaticPodPath: s.StaticPodPath, PodLogsDir: s.PodLogsDir, Port: int32(s.Port), Address: "0.0.0.0",
		TLSCertFile: s.TLSCertFile, TLSPrivateKeyFile: s.TLSKeyFile, RotateCertificates: s.RotateCertificates,
		Authentication: kubeletconfig.KubeletAuthentication{
			X509: kubeletconfig.KubeletX509Authentication{ClientCAFile: s.ClientCAFile}, Webhook: kubeletconfig.KubeletWebhookAuthentication{Enabled: ptr.To(true)},
			Anonymous: kubeletconfig.KubeletAnonymousAuthentication{Enabled: ptr.To(false)},
		},
		Authorization:   kubeletconfig.KubeletAuthorization{Mode: kubeletconfig.KubeletAuthorizationModeWebhook},
		RegistryPullQPS: ptr.To(int32(s.RegistryPullQPS)), RegistryBurst: int32(s.RegistryBurst),
		ClusterDomain: s.ClusterDomain, ClusterDNS: s.ClusterDNS, NodeStatusMaxImages: ptr.To(int32(s.NodeStatusMaxImages)),
		ImageMinimumGCAge: duration(s.ImageMinimumGCAge), ImageMaximumGCAge: duration(s.ImageMaximumGCAge),
		ImageGCHighThresholdPercent: ptr.To(int32(s.ImageGCHighThresholdPercent)), ImageGCLowThresholdPercent: ptr.To(int32(s.ImageGCLowThresholdPercent)),
		CgroupRoot: s.CgroupRoot, CgroupDriver: driver, MaxPods: int32(s.MaxPods), PodCIDR: s.PodCIDR,
		SerializeImagePulls: ptr.To(s.ParallelPulls() == 1), ContainerLogMaxSize: s.ContainerLogMaxSize, ContainerLogMaxFiles: ptr.To(int32(s.ContainerLogMaxFiles)),
		SeccompDefault: ptr.To(s.SeccompDefault), AllowedUnsafeSysctls: s.AllowedUnsafeSysctls, EnableSystemLogHandler: ptr.To(s.EnableSystemLogHandler),
		EnableServer: ptr.To(true), EnableDebuggingHandlers: ptr.To(true), ContainerRuntimeEndpoint: s.ContainerdAddress, RegisterWithTaints: s.Taints(), RegisterNode: ptr.To(true),
		ShutdownGracePeriod: duration(s.ShutdownGracePeriod), ShutdownGracePeriodCriticalPods: duration(s.ShutdownGracePeriodCriticalPods),
		ImagePullCredentialsVerificationPolicy: kubeletconfig.ImagePullCredentialsVerificationPolicy(s.ImagePullCredentialsVerificationPolicy),
		PreloadedImagesVerificationAllowlist:   s.PreloadedImagesVerificationAllowlist,
	}
	if parallel := s.ParallelPulls(); parallel > 0 {
		c.MaxParallelImagePulls = ptr.To(int32(parallel))
	}
	for _, p := range s.ShutdownGracePeriodByPodPriority {
		c.ShutdownGracePeriodByPodPriority = append(c.ShutdownGracePeriodByPodPriority, kubeletconfig.ShutdownGracePeriodByPodPriority{
			Priority: p.Priority, ShutdownGracePeriodSeconds: p.ShutdownGracePeriodSeconds,
		})
	}
	return c
}
