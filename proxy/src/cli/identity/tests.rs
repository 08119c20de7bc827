use super::*;

fn variables(told: &[(&str, &str)]) -> Variables {
    told.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect()
}

/// What is found when these files are there.
fn found(told: &[(&str, &str)], there: &[&str]) -> Result<Option<IdentitySource>, String> {
    source(&variables(told), &|path: &Path| there.iter().any(|directory| path.starts_with(directory)))
}

#[test]
fn the_first_that_is_there() {
    let check = |told: &[(&str, &str)], there: &[&str], expected: &str| {
        let found = match found(told, there) {
            Ok(None) => "none".to_owned(),
            Ok(Some(IdentitySource::Files(files))) => files.key.display().to_string(),
            Ok(Some(IdentitySource::Authority(authority))) => authority.address.to_string(),
            Ok(Some(IdentitySource::Socket(path))) => path.display().to_string(),
            Ok(Some(IdentitySource::Pushed(_))) => "pushed".to_owned(),
            Err(why) => why,
        };
        assert_eq!(found, expected, "{told:?} {there:?}");
    };
    let (mounted, spiffe) = ("/etc/certs/key.pem", format!("{SPIFFE_CREDENTIALS}/key.pem"));
    check(&[], &[], "none");
    check(&[], &["/etc/certs"], mounted);
    check(&[], &["/etc/certs", SPIFFE_CREDENTIALS], &spiffe);
    // A socket comes before all else, and is waited for if it is named.
    check(&[], &["/etc/certs", SPIFFE_CREDENTIALS, SPIFFE_SOCKETS], &format!("{SPIFFE_SOCKETS}/socket"));
    let named = [("WORKLOAD_IDENTITY_SOCKET_FILE", "api.sock")];
    check(&named, &["/etc/certs"], &format!("{SPIFFE_SOCKETS}/api.sock"));
    let elsewhere = [("WORKLOAD_IDENTITY_SOCKET_FILE", "../api.sock")];
    assert!(found(&elsewhere, &[]).is_err_and(|why| why.contains("WORKLOAD_IDENTITY_SOCKET_FILE")));
    check(&[("FILE_MOUNTED_CERTS", "true")], &[], mounted);
    let own = [("FILE_MOUNTED_CERTS", "true"), ("ISTIO_META_TLS_CLIENT_KEY", "/k")];
    check(&own, &[], "/k");
    check(&[("PROV_CERT", "/p")], &[], "/p/key.pem");
    check(&[("PROV_CERT", "/p")], &["/etc/certs"], mounted);
    check(&[("OUTPUT_CERTS", "/o")], &[], "none");
    check(&[("OUTPUT_CERTS", "/o")], &["/o"], "/o/key.pem");
    // The authority comes after files, and before what it once wrote to them.
    check(&[], &[TOKEN], CA_ADDR);
    check(&[("CA_ADDR", "ca:1")], &[], "ca:1");
    check(&[("CA_ADDR", "ca:1")], &[SPIFFE_CREDENTIALS], &spiffe);
    check(&[("CA_ADDR", "ca:1"), ("PROV_CERT", "/p")], &[], "/p/key.pem");
    check(&[("CA_ADDR", "ca:1"), ("OUTPUT_CERTS", "/o")], &["/o"], "ca:1");
    check(&[("CA_ADDR", "")], &[], "none");
}

#[test]
fn how_the_authority_is_asked() {
    let asked = |told: &[(&str, &str)]| {
        let told = [&[("CA_ADDR", "ca:1")], told].concat();
        match found(&told, &[]).unwrap() {
            Some(IdentitySource::Authority(authority)) => *authority,
            other => panic!("{other:?}"),
        }
    };
    let default = asked(&[]);
    assert_eq!(
        default,
        MeshAuthority {
            address: Address { host: "ca".to_owned(), port: 1, server_name: None },
            believed_by: AuthorityRoots::File(MESH_ROOTS.into()),
            roots: MESH_ROOTS.into(),
            token: TOKEN.into(),
            key: KeyKind::EcdsaP256,
            validity: Duration::from_secs(86_400),
            grace_per_mille: 500,
            grace_jitter_per_mille: 10,
            cluster_id: "Kubernetes".to_owned(),
            signer: String::new(),
            output: None,
        }
    );
    let told = asked(&[
        ("CA_ROOT_CA", "/r"),
        ("ISTIOD_SAN", "istiod"),
        ("JWT_POLICY", "first-party-jwt"),
        ("SECRET_TTL", "1h"),
        ("SECRET_GRACE_PERIOD_RATIO", "0.25"),
        ("SECRET_GRACE_PERIOD_RATIO_JITTER", "0"),
        ("ISTIO_META_CLUSTER_ID", "c"),
        ("ISTIO_META_CERT_SIGNER", "s"),
        ("OUTPUT_CERTS", "/o"),
        ("PILOT_CERT_PROVIDER", "kubernetes"),
    ]);
    assert_eq!(told.believed_by, AuthorityRoots::File("/r".into()));
    assert_eq!(
        (told.roots.as_path(), told.token.as_path()),
        (Path::new(KUBERNETES_ROOTS), Path::new(ACCOUNT_TOKEN))
    );
    assert_eq!(
        (told.address.server_name.as_deref(), told.validity),
        (Some("istiod"), Duration::from_secs(3600))
    );
    assert_eq!((told.grace_per_mille, told.grace_jitter_per_mille), (250, 0));
    assert_eq!((told.cluster_id.as_str(), told.signer.as_str()), ("c", "s"));
    assert_eq!(told.output.as_deref(), Some(Path::new("/o")));
    assert_eq!(asked(&[("CA_ROOT_CA", "SYSTEM")]).believed_by, AuthorityRoots::System);
    let kinds: [(&[(&str, &str)], KeyKind); 5] = [
        (&[("ECC_SIGNATURE_ALGORITHM", "ECDSA")], KeyKind::EcdsaP256),
        (&[("ECC_SIGNATURE_ALGORITHM", "ECDSA"), ("ECC_CURVE", "P384")], KeyKind::EcdsaP384),
        (&[("ECC_CURVE", "P256"), ("WORKLOAD_RSA_KEY_SIZE", "2048")], KeyKind::EcdsaP256),
        (&[("WORKLOAD_RSA_KEY_SIZE", "2048")], KeyKind::Rsa2048),
        (&[], KeyKind::EcdsaP256),
    ];
    for (told, kind) in kinds {
        assert_eq!(asked(told).key, kind, "{told:?}");
    }
}

#[test]
fn what_cannot_be_done_is_refused_by_name() {
    for (name, text) in [
        ("CA_ADDR", "nowhere"),
        ("CA_PROVIDER", "GoogleCA"),
        ("PILOT_CERT_PROVIDER", "none"),
        ("JWT_POLICY", "none"),
        ("SECRET_TTL", "0s"),
        ("SECRET_TTL", "soon"),
        ("SECRET_GRACE_PERIOD_RATIO", "1.5"),
        ("SECRET_GRACE_PERIOD_RATIO", "NaN"),
        ("SECRET_GRACE_PERIOD_RATIO_JITTER", "-1"),
        ("ECC_SIGNATURE_ALGORITHM", "EdDSA"),
        ("ECC_CURVE", "P521"),
        ("WORKLOAD_RSA_KEY_SIZE", "1024"),
    ] {
        let why = found(&[("CA_ADDR", "ca:1"), (name, text)], &[]).unwrap_err();
        assert!(why.starts_with(&format!("{name}: `{text}`")), "{why}");
    }
}
