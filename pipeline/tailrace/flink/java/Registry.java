package tailrace.flink;

import java.io.IOException;
import java.io.InputStream;
import java.net.HttpURLConnection;
import java.net.URL;
import java.util.Base64;
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

    private static JsonNode get(String url, int id) throws IOException {
        HttpURLConnection connection = (HttpURLConnection) new URL(url + "/schemas/ids/" + id).openConnection();
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
