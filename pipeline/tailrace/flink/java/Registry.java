package tailrace.flink;

import java.io.FileInputStream;
import java.io.IOException;
import java.io.InputStream;
import java.net.HttpURLConnection;
import java.net.URL;
import java.security.GeneralSecurityException;
import java.security.KeyStore;
import java.security.cert.Certificate;
import java.security.cert.CertificateFactory;
import java.util.Base64;
import javax.net.ssl.HttpsURLConnection;
import javax.net.ssl.SSLContext;
import javax.net.ssl.SSLSocketFactory;
import javax.net.ssl.TrustManagerFactory;
import org.apache.flink.shaded.jackson2.com.fasterxml.jackson.databind.JsonNode;
import org.apache.flink.shaded.jackson2.com.fasterxml.jackson.databind.ObjectMapper;

/** Schemas by id (GET /schemas/ids/{id}), tried again while the registry is down. */
class Registry {
    private static final int ATTEMPTS = 60;

    private Registry() {}

    static JsonNode schema(String url, int id) throws IOException {
        IOException last = null;
        for (int attempt = 0; attempt < ATTEMPTS; attempt++) {
            try {
                return get(url, id);
            } catch (SchemaMismatchException e) {
                throw e;
            } catch (IOException e) {
                last = e;
            }
            try {
                Thread.sleep(1000L);
            } catch (InterruptedException e) {
                Thread.currentThread().interrupt();
                throw new IOException("interrupted while waiting for the schema registry");
            }
        }
        throw new IOException("the schema registry at " + url + " does not answer: " + last.getMessage());
    }

    /** Takes the certificates that those in this PEM file have signed, and no others. */
    private static SSLSocketFactory trusting(String authorities) throws IOException {
        try {
            KeyStore trusted = KeyStore.getInstance(KeyStore.getDefaultType());
            trusted.load(null, null);
            InputStream file = new FileInputStream(authorities);
            try {
                int count = 0;
                for (Object found : CertificateFactory.getInstance("X.509").generateCertificates(file)) {
                    trusted.setCertificateEntry("ca-" + count++, (Certificate) found);
                }
            } finally {
                file.close();
            }
            TrustManagerFactory managers = TrustManagerFactory.getInstance(TrustManagerFactory.getDefaultAlgorithm());
            managers.init(trusted);
            SSLContext context = SSLContext.getInstance("TLS");
            context.init(null, managers.getTrustManagers(), null);
            return context.getSocketFactory();
        } catch (GeneralSecurityException e) {
            throw new IOException("the certificates in " + authorities + " cannot be used: " + e.getMessage());
        }
    }

    private static JsonNode get(String url, int id) throws IOException {
        HttpURLConnection connection = (HttpURLConnection) new URL(url + "/schemas/ids/" + id).openConnection();
        String authorities = System.getenv("TAILRACE_REGISTRY_CA");
        if (authorities != null && connection instanceof HttpsURLConnection) {
            ((HttpsURLConnection) connection).setSSLSocketFactory(trusting(authorities));
        }
        String login = System.getenv("TAILRACE_REGISTRY_LOGIN");
        if (login != null) {
            String encoded = Base64.getEncoder().encodeToString(login.getBytes("UTF-8"));
            connection.setRequestProperty("Authorization", "Basic " + encoded);
        }
        connection.setConnectTimeout(5000);
        connection.setReadTimeout(10000);
        int status = connection.getResponseCode();
        if (status == 404) {
            throw new SchemaMismatchException("a record names schema " + id + ", which " + url + " does not know");
        }
        if (status != 200) {
            throw new IOException("HTTP status " + status);
        }
        InputStream body = connection.getInputStream();
        try {
            ObjectMapper json = new ObjectMapper();
            return json.readTree(((JsonNode) json.readTree(body).get("schema")).asText());
        } finally {
            body.close();
        }
    }
}
