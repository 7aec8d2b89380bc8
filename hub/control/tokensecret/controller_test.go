package tokensecret

import (
	"testing"
	"testing/synctest"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"petrel.dev/petrel/hub/control"
	"petrel.dev/petrel/hub/control/controltest"
	"petrel.dev/petrel/internal/kube"
)

// issuer signs in plain words.
type issuer struct{}

func (issuer) IssueLegacy(sa *corev1.ServiceAccount, s *corev1.Secret) (string, error) {
	return "token of " + sa.Name + " in " + s.Name, nil
}

func secret(name, account string) *corev1.Secret {
	return &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name, Annotations: map[string]string{corev1.ServiceAccountNameKey: account}},
		Type:       corev1.SecretTypeServiceAccountToken,
	}
}

// TestTokenSecrets checks that a Secret gets its account's token, keeps it, and goes with the account.
func TestTokenSecrets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sa := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "till", UID: "sa-1"}, Secrets: []corev1.ObjectReference{{Name: "old"}, {Name: "mine"}}}
		opaque := secret("opaque", "till")
		opaque.Type = corev1.SecretTypeOpaque
		c := controltest.New(t, sa, secret("mine", "till"), secret("orphan", "nobody"), opaque)
		ctl := New(Config{Client: c, Issuer: issuer{}, CA: []byte("PEM")})
		go func() { _ = ctl.Run(t.Context()) }()
		synctest.Wait()
		get := func(name string) *corev1.Secret {
			s, _ := control.Get[*corev1.Secret](c, kube.Secret, "shop", name)
			return s
		}
		mine := get("mine")
		if string(mine.Data["token"]) != "token of till in mine" || string(mine.Data["ca.crt"]) != "PEM" || string(mine.Data["namespace"]) != "shop" ||
			mine.Annotations[corev1.ServiceAccountUIDKey] != "sa-1" {
			t.Errorf("the Secret is %+v", mine)
		}
		if get("orphan") != nil {
			t.Error("a Secret without an account stays")
		}
		if len(get("opaque").Data) != 0 {
			t.Error("a Secret of another type got a token")
		}
		up := mine.DeepCopy()
		up.Data["ca.crt"], up.Data["token"] = []byte("edited"), []byte("own")
		c.Put(up)
		synctest.Wait()
		if mine = get("mine"); string(mine.Data["ca.crt"]) != "PEM" || string(mine.Data["token"]) != "own" {
			t.Errorf("an edited Secret is %q", mine.Data)
		}
		c.Writes()
		for range 2 {
			ctl.Used(get("mine"))
			synctest.Wait()
		}
		if w := c.Writes(); len(w) != 1 || get("mine").Labels[lastUsedLabel] != today() {
			t.Errorf("use was noted by %q: %v", w, get("mine").Labels)
		}
		c.Put(secret("old", "till"))
		synctest.Wait()
		c.Remove(kube.Secret, "shop", "old")
		synctest.Wait()
		if sa, _ := control.Get[*corev1.ServiceAccount](c, kube.ServiceAccount, "shop", "till"); len(sa.Secrets) != 1 || sa.Secrets[0].Name != "mine" {
			t.Errorf("the account refers to %v", sa.Secrets)
		}
		c.Remove(kube.ServiceAccount, "shop", "till")
		synctest.Wait()
		if get("mine") != nil || get("opaque") == nil {
			t.Error("only the token's Secret goes with its account")
		}
	})
}
